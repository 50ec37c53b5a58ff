# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Makers of the built-in data sets, VOC and ImageNet in miniature."""
