# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The steps of tools/demo/detection.py and tools/demo/classification.py."""
