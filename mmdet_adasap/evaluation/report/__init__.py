# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The report of robustness runs: HTML, Markdown and CSV."""

from .checks import MalformedResults
from .comparing import compare
from .writing import write_report

__all__ = ['MalformedResults', 'compare', 'write_report']
