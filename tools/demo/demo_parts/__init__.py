# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What tools/demo/detection.py and tools/demo/classification.py share."""
