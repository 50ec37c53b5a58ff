# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""List the channels that can be removed: ``adasap groups``."""

from mmdet_adasap.cli.groups_command import main

if __name__ == '__main__':
    main()
