# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A short run with the original mmengine, mmcv-lite and numpy 1, beside the torch that is here.

`make test-original` runs a large part of the tests with all of the original packages; this is the
guard in every run of the tests.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGES = Path(sysconfig.get_path('data')) / 'original-lite'
"""Where tools/dev/setup_env.py puts them."""
RUN = """
import mmcv, mmengine, numpy
from mmengine.runner import Runner
import mmdet_adasap
from _utils.toy import ToyModel, settings

hook = dict(warmup=1, prune=1, interval=1, target=dict(params=0.5))
cfg = settings('work_dir', hook, log_level='ERROR')
print(numpy.__version__, mmengine.__version__, mmcv.__version__)
Runner(model=ToyModel(), experiment_name='begun', **cfg).train()
cfg |= dict(load_from='work_dir/epoch_4.pth', resume=True)
resumed = Runner(model=ToyModel(), experiment_name='resumed', **cfg)
resumed.train()
print(resumed.iter, sum(p.numel() for p in resumed.model.parameters()) < 0.6 * sum(
    p.numel() for p in ToyModel().parameters()))
"""


@pytest.mark.long
@pytest.mark.skipif(not PACKAGES.is_dir(), reason='made by `make install` alone')
def test_training_and_resume_with_the_original_packages(tmp_path):
    path = os.pathsep.join(map(str, (PACKAGES, TESTS.parent, TESTS)))
    done = subprocess.run(
        [sys.executable, '-c', RUN],
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=path, OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr[-3000:]
    assert done.stdout.split()[:3] == ['1.26.4', '0.10.7', '2.1.0']
    assert done.stdout.split()[-2:] == ['36', 'True']
