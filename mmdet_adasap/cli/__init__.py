# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The commands of ``adasap COMMAND``, one a file; ``tools/`` has a script for each but env."""
