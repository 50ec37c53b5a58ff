# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The robustness benchmark: corruptions, data sets, metrics, runs over all cells, the report."""
