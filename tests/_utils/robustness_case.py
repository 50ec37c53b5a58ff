# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A config that tests a detector without training, and what of its results is always the same."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmdet_adasap', '_utils.seeing_detector'])
model = dict(_delete_=True, type='SeeingDetector')
train_dataloader = dict(dataset=dict(data_root={data!r}))
val_dataloader = dict(dataset=dict(data_root={data!r}))
test_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
"""


def write_config(file: Path, data: Path, more: str = '') -> None:
    base = str(ROOT / 'configs' / 'demo' / 'dense_yolox_tiny-voc.py')
    file.write_text(CONFIG.format(base=base, data=f'{data}/VOCdevkit/') + more)


def without_times(out: Path) -> str:
    results = json.loads((out / 'results.json').read_text())
    results.pop('times')
    for model in results['models'].values():
        for key in ('latency_ms', 'latency_low_ms', 'latency_high_ms'):
            model['cost'].pop(key, None)
    return json.dumps(results)
