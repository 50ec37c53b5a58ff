# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write a pruned model that needs no plugin: ``adasap export``."""

from mmdet_adasap.cli.export_command import main

if __name__ == '__main__':
    main()
