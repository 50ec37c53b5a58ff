# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The steps of tools/demo.py and tools/demo_classification.py."""
