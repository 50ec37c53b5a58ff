# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Test models clean and under corruptions: ``adasap robustness``."""

from mmdet_adasap.cli.robustness_command import main

if __name__ == '__main__':
    main()
