# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .summary import summarize

__all__ = ['summarize']
