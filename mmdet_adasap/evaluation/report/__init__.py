# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The report of a robustness run: HTML, Markdown and CSV."""

from .checks import MalformedResults
from .writing import write_report

__all__ = ['MalformedResults', 'write_report']
