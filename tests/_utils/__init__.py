# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models, runs and files that several tests share; none of them is a test."""
