# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""mmdet's own train.py and test.py, as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')

from builtin_sets.tiny_voc import build_tiny_voc
from mmdet_adasap.env import find_tool

ROOT = Path(__file__).parents[2]

CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmdet_adasap', '_utils.score_sum'], allow_failed_imports=False)
load_from = None
model = dict(test_cfg=dict(score_thr=0.0))
train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
val_dataloader = dict(dataset=dict(data_root={data!r}))
test_dataloader = dict(dataset=dict(data_root={data!r}, ann_file='VOC2007/ImageSets/Main/val.txt'))
val_evaluator = dict(_delete_=True, type='ScoreSum')
test_evaluator = dict(_delete_=True, type='ScoreSum')
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), adasap=dict(warmup=1, prune=1, interval=2))
"""


def run(tool: str, *args: object) -> None:
    subprocess.run(
        [sys.executable, find_tool(tool), *map(str, args)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ
        | dict(PYTHONPATH=f'{ROOT}{os.pathsep}{ROOT / "tests"}', OMP_NUM_THREADS='1'),
    )


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('mmdet_tools')
    build_tiny_voc(folder / 'data', train=16, val=4, test=4)
    path = folder / 'config.py'
    base = ROOT / 'configs' / 'demo' / 'adasap_yolox_tiny-voc.py'
    path.write_text(CONFIG.format(base=str(base), data=f'{folder}/data/VOCdevkit/'))
    return path


@pytest.mark.long
def test_pruned_checkpoint_tests_as_it_was_validated(config, tmp_path):
    """With the unpruned config, in a new process, to the same numbers."""
    run('train', config, '--work-dir', tmp_path)
    (file,) = tmp_path.rglob('scalars.json')
    validated = json.loads(file.read_text().splitlines()[-1])
    assert validated['scores'] > 0

    run('test', config, tmp_path / 'epoch_3.pth', '--work-dir', tmp_path / 'test')
    (file,) = (tmp_path / 'test').glob('*/*.json')
    tested = json.loads(file.read_text())
    for key in ('scores', 'boxes'):
        assert tested[key] == validated[key]
