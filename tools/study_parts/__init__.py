# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The parts of study.py."""
