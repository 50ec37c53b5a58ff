# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Every program that a user calls, one after the other, on a built-in set.

Dense training, AdaSAP, test, resume, robustness, export, test of what was exported: with mmdet's
or mmpretrain's own train.py and test.py, in processes of their own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdet_adasap.env import find_tool

pytestmark = [pytest.mark.slow, pytest.mark.chain]

ROOT = Path(__file__).parents[1]
SHORT = ['default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=-1']
HOOK = 'default_hooks.adasap'
DETECTOR = dict(
    package='mmdet',
    make=['make_tiny_voc.py', '--train', '48', '--val', '10', '--test', '10', '--out'],
    data='data/tiny_voc',
    dense='configs/demo/dense_yolox_tiny-voc.py',
    adasap='configs/demo/adasap_yolox_tiny-voc.py',
    short=['train_cfg.max_epochs=5', f'{HOOK}.warmup=1', f'{HOOK}.prune=2', f'{HOOK}.interval=2'],
    metric='pascal_voc/mAP',
    unit=1,
)
CLASSIFIER = dict(
    package='mmpretrain',
    make=['make_tiny_imagenet.py', '--train', '12', '--val', '4', '--test', '4', '--out'],
    data='data/tiny_imagenet_32px',
    dense='configs/demo/dense_resnet18_tiny-imagenet.py',
    adasap='configs/demo/adasap_resnet18_tiny-imagenet.py',
    # Four iterations an epoch.
    short=['train_cfg.max_epochs=5', f'{HOOK}.warmup=4', f'{HOOK}.prune=8', f'{HOOK}.interval=2'],
    metric='accuracy/top1',
    unit=100,  # percent
)


def run(*command: object) -> str:
    """Run a program; its output, or all of it where it fails."""
    environment = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert not done.returncode, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def score(work_dir: str, metric: str) -> float:
    """What test.py has written."""
    (file,) = Path(work_dir).glob('*/*.json')
    return json.loads(file.read_text().splitlines()[-1])[metric]


def weights(file: str) -> dict[str, torch.Tensor]:
    return torch.load(file, map_location='cpu', weights_only=False)['state_dict']


@pytest.mark.parametrize('case', [DETECTOR, CLASSIFIER], ids=['detector', 'classifier'])
def test_chain(case, tmp_path, monkeypatch):
    pytest.importorskip(case['package'])
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    train, test = (find_tool(f'{case["package"]}::{name}') for name in ('train', 'test'))
    run(ROOT / 'tools' / 'demo' / case['make'][0], *case['make'][1:], case['data'])

    dense = [train, case['dense'], '--work-dir', 'dense', '--cfg-options', *SHORT]
    run(*dense, 'train_cfg.max_epochs=1')
    start = 'load_from=dense/epoch_1.pth'
    adasap = [train, case['adasap'], '--cfg-options', *SHORT, *case['short']]
    run(*adasap, start, '--work-dir', 'adasap')
    slim = weights('adasap/epoch_5.pth')
    before, after = (
        sum(t.numel() for t in w.values()) for w in (weights('dense/epoch_1.pth'), slim)
    )
    assert after < 0.6 * before

    Path('resumed').mkdir()
    shutil.copy('adasap/epoch_2.pth', 'resumed')
    Path('resumed/last_checkpoint').write_text('resumed/epoch_2.pth')
    run(*adasap, '--work-dir', 'resumed', '--resume', 'resumed/epoch_2.pth')
    resumed = weights('resumed/epoch_5.pth')
    assert resumed.keys() == slim.keys()
    assert all(torch.equal(tensor, slim[name]) for name, tensor in resumed.items())

    run(test, case['adasap'], 'adasap/epoch_5.pth', '--work-dir', 'tested')
    tested = score('tested', case['metric'])

    models = ['dense=dense/epoch_1.pth', 'slim=adasap/epoch_5.pth']
    cells = ['--corruptions', 'fog', '--severities', '3', '--resamples', '20', '--workers', '0']
    run(ROOT / 'tools' / 'robustness.py', case['adasap'], *models, '--out', 'report', *cells)
    results = json.loads(Path('report/results.json').read_text())
    assert results['models']['slim']['clean'] * case['unit'] == pytest.approx(tested, abs=1e-3)
    assert Path('report/report.html').is_file()

    export = ['adasap/epoch_5.pth', '--out', 'exported', '--rounds', '1']
    run(ROOT / 'tools' / 'export.py', case['adasap'], *export)
    run(test, 'exported/config.py', 'exported/model.pth', '--work-dir', 'tested_export')
    assert score('tested_export', case['metric']) == pytest.approx(tested, abs=1e-4)
