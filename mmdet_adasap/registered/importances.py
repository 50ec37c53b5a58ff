# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The criteria of removal that a config can name."""

from __future__ import annotations

from collections.abc import Mapping

from .. import pruning
from ..pruning import Importance, MagnitudeImportance, TaylorImportance
from ..registry import IMPORTANCES, build

IMPORTANCES.register_module(module=MagnitudeImportance)
IMPORTANCES.register_module(module=TaylorImportance)


@IMPORTANCES.register_module()
class UniformWidth(pruning.UniformWidth):
    """Takes the same share of each group, as :class:`~mmdet_adasap.pruning.UniformWidth`.

    Args:
        within (str | Mapping | Importance): The criterion of the order within a group: its name,
            as in a config, or itself. Defaults to 'TaylorImportance'.
    """

    def __init__(self, within: str | Mapping | Importance = 'TaylorImportance') -> None:
        if within is None:  # which build() takes for nothing to build
            raise ValueError('within=None must be a criterion; leave it out, or name one')
        cfg = dict(type=within) if isinstance(within, str) else within
        super().__init__(build(IMPORTANCES, cfg, 'within'))
