# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A classifier whose training is begun on one stack of packages and ended on another.

python tests/_utils/travel_case.py NAME    writes tests/data/travel/NAME.pth and NAME.json: a
checkpoint as training writes it, two epochs after the cut, and how the training ended
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from _utils.made_by_0_1_case import raw_of, summary_of, tensors_of, write_images
from mmdet_adasap.apis import init_pruned_classifier

TESTS = Path(__file__).parents[1]
CONFIG = TESTS / 'data' / 'made_by_0_1' / 'classifier.py'
FILES = TESTS / 'data' / 'travel'
EPOCHS = 5


def config_of(work_dir: str) -> Config:
    """Of a training of five epochs, cut after the second; images are in the current folder."""
    cfg = Config.fromfile(CONFIG)
    cfg.train_cfg.max_epochs = EPOCHS
    cfg.train_cfg.val_interval = 1
    cfg.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=1)
    # Milestones are kept in a Counter, scores in a HistoryBuffer.
    cfg.param_scheduler = dict(type='MultiStepLR', milestones=[3, 4], gamma=0.3)
    cfg.merge_from_dict(dict(work_dir=work_dir, experiment_name=Path(work_dir).name))
    return cfg


def end_of(work_dir: str) -> dict[str, list[float]]:
    """What a training ended with: weights and momentum, summed up."""
    checkpoint = torch.load(f'{work_dir}/epoch_{EPOCHS}.pth', weights_only=False)
    return summary_of(tensors_of(checkpoint))


def logits_of(checkpoint: str) -> list[float]:
    """What the network of a checkpoint gives for one image."""
    (logits,) = raw_of(init_pruned_classifier(CONFIG, checkpoint))
    return logits.flatten().tolist()


def make(name: str) -> None:
    """Train without a stop, and keep a checkpoint of it."""
    FILES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_images(Path('images'))
        Runner.from_cfg(config_of('run')).train()
        made = f'run/epoch_{EPOCHS - 1}.pth'
        found = dict(end=end_of('run'), logits=logits_of(made))
        shutil.copy(made, FILES / f'{name}.pth')
        (FILES / f'{name}.json').write_text(json.dumps(found) + '\n')
        os.chdir(TESTS)


if __name__ == '__main__':
    torch.set_num_threads(1)
    make(sys.argv[1])
