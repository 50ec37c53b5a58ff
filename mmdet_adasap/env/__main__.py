# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import sys

from .command import main

if __name__ == '__main__':
    sys.exit(main())
