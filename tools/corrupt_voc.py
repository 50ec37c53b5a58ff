# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write corrupted copies of a VOC set: ``adasap corrupt``."""

from mmdet_adasap.cli.corrupt_command import main

if __name__ == '__main__':
    main()
