# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The report of robustness runs: HTML, Markdown and CSV."""

from .compare import compare
from .writer import write_report

__all__ = ['compare', 'write_report']
