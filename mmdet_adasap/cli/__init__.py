# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The command lines, ``adasap COMMAND``. `tools/` has a program of the same name for each."""
