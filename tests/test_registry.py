# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re
import subprocess
import sys

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mmdet_adasap.pruning import TaylorImportance
from mmdet_adasap.registry import PERTURBATIONS, build
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation


class TestBuild:
    @pytest.mark.parametrize(
        'type_',
        ['UniformPerturbation', 'mmdet_adasap.UniformPerturbation', UniformPerturbation],
    )
    @pytest.mark.parametrize('wrap', [dict, ConfigDict])
    def test_dict(self, type_, wrap):
        cfg = wrap(type=type_, rho=0.3, scope='layer')
        built = build(PERTURBATIONS, cfg, 'finetune')
        assert type(built) is UniformPerturbation
        assert (built.rho, built.scope) == (0.3, 'layer')
        assert 'type' in cfg

    def test_none_and_instance(self):
        perturbation = AdaptivePerturbation()
        assert build(PERTURBATIONS, None, 'perturbation') is None
        assert build(PERTURBATIONS, perturbation, 'perturbation') is perturbation

    def test_default_scope_of_mmdet(self, capsys):
        with DefaultScope.overwrite_default_scope('mmdet'):
            built = build(PERTURBATIONS, {'type': 'AdaptivePerturbation'}, 'perturbation')
        assert type(built) is AdaptivePerturbation
        assert not capsys.readouterr().err

    @pytest.mark.parametrize(
        ('cfg', 'message'),
        [
            ({'type': 'Adaptive'}, "finetune.type='Adaptive' is unknown; use one of 'Adaptive"),
            ({'rho': 1}, "finetune.type is missing in {'rho': 1}; use one of 'AdaptivePert"),
            ('SAM', "finetune='SAM' is neither a dict nor None"),
            (TaylorImportance(), 'is neither a dict nor None; write finetune=dict(type=...)'),
            ({'type': TaylorImportance}, "TaylorImportance'> is unknown; use one of 'Adaptive"),
            ({'type': ['SAM']}, "finetune.type=['SAM'] is unknown"),
            (
                {'type': 'UniformPerturbation', 'radius': 1},
                "finetune: UniformPerturbation: unexpected 'radius'; it takes rho, scope, ",
            ),
            ({'type': 'UniformPerturbation', 'rho': -1}, 'finetune.rho=-1 must be'),
            ({'type': 'UniformPerturbation', 'rho': 'x'}, "finetune.rho='x' is not a number"),
            (
                {'type': 'AdaptivePerturbation', 'rho_min': 0.5},
                'finetune.rho_min=0.5 is larger than rho_max=0.4;',
            ),
        ],
    )
    def test_errors(self, cfg, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            build(PERTURBATIONS, cfg, 'finetune')


class TestOwnTypes:
    """The package's own types are there before anything is done with a registry."""

    PROGRAM = """
from mmdet_adasap.pruning import Importance
from mmdet_adasap.registry import IMPORTANCES, build

class TaylorImportance(Importance):
    def scores(self, *args):
        pass

FIRST
IMPORTANCES.register_module(module=TaylorImportance, force=True)
assert type(build(IMPORTANCES, dict(type='TaylorImportance'), 'importance')) is TaylorImportance
assert build(IMPORTANCES, dict(type='MagnitudeImportance'), 'importance') is not None
"""

    @pytest.mark.parametrize(
        'first',
        [
            '',
            "assert {'MagnitudeImportance', 'TaylorImportance'} <= IMPORTANCES.module_dict.keys()",
            """
try:
    IMPORTANCES.register_module(module=TaylorImportance)
except KeyError as error:
    assert 'already registered' in str(error)
else:
    raise AssertionError
""",
        ],
        ids=['replaced', 'listed', 'taken'],
    )
    def test_before_the_first_lookup(self, first):
        program = self.PROGRAM.replace('FIRST', first)
        subprocess.run([sys.executable, '-c', program], check=True)
