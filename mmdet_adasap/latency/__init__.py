# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How long the layers of a network take on a device: measured there, read here."""

from .table import LatencyTable

__all__ = ['LatencyTable']
