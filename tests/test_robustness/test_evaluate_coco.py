# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Detectors on a set with an annotation file of COCO's, whose order is not the config's."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from _utils.seeing_detector import SeeingDetector
from mmdet_adasap.apis import ModelSource, evaluate_robustness
from mmdet_adasap.errors import UnreadableImagesError

CLASSES = ('cup', 'plate', 'spoon', 'fork')
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmdet_adasap', '_utils.seeing_detector'])
model = dict(_delete_=True, type={model!r})
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _delete_=True,
        type='CocoDataset',
        data_root={data!r},
        ann_file='all.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('spoon', 'fork', 'cup', 'plate')),
        test_mode=True,
        pipeline={{{{_base_.test_pipeline}}}},
    ),
)
test_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file={data!r} + '/all.json', classwise=True
)
"""
CELLS = dict(corruptions=['brightness'], severities=[5])
KEY = 'coco/bbox_mAP_50'


@MODELS.register_module(force=True)
class TimidDetector(SeeingDetector):
    """Finds nothing in dark images."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        found = super().forward(inputs, data_samples, mode)
        if mode == 'predict':
            for image, sample in zip(inputs, found, strict=True):
                if image.mean() < 150:
                    sample.pred_instances = sample.pred_instances[:0]
        return found


def write_images(folder: Path, count: int = 12) -> None:
    """Images with boxes of cups, plates and spoons; there is no fork."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        name = f'{number}.png'
        cv2.imwrite(str(folder / name), rng.integers(60, 140, (96, 96, 3), np.uint8))
        images.append(dict(id=100 - number, width=96, height=96, file_name=name))
        for _ in range(rng.integers(1, 4)):
            x, y, width, height = rng.integers(5, 45, 4).tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=100 - number,
                    category_id=int(rng.choice([8, 6, 4])),
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=0,
                )
            )
    categories = [dict(id=8 - 2 * i, name=name) for i, name in enumerate(CLASSES)]
    everything = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'all.json').write_text(json.dumps(everything))


@pytest.fixture
def case(tmp_path, request) -> Path:
    write_images(tmp_path)
    base = str(request.config.rootpath / 'configs/demo/dense_yolox_tiny-voc.py')
    for model in ('SeeingDetector', 'TimidDetector'):
        text = CONFIG.format(base=base, model=model, data=str(tmp_path))
        (tmp_path / f'{model}.py').write_text(text)
    torch.save(dict(state_dict=SeeingDetector(3.0).state_dict()), tmp_path / 'a.pth')
    return tmp_path


def run(case: Path, model: str = 'SeeingDetector', **changed) -> dict:
    source = ModelSource('a', str(case / f'{model}.py'), str(case / 'a.pth'))
    return evaluate_robustness([source], case / 'out', **{**CELLS, **changed})


def measured(case: Path, left: Sequence[int]) -> dict:
    """What mmdet's own Runner measures on a file of these images alone."""
    found = json.loads((case / 'all.json').read_text())
    found['images'] = [one for one in found['images'] if one['id'] in left]
    found['annotations'] = [one for one in found['annotations'] if one['image_id'] in left]
    (case / 'few.json').write_text(json.dumps(found))
    config = Config.fromfile(case / 'SeeingDetector.py')
    config.test_dataloader.dataset.ann_file = 'few.json'
    config.test_evaluator.ann_file = str(case / 'few.json')
    config.update(work_dir=str(case / 'runner'), load_from=str(case / 'a.pth'))
    config.update(log_level='ERROR', experiment_name=case.name)
    return Runner.from_cfg(config).test()


@pytest.mark.long
@pytest.mark.parametrize('why', ['subset', 'unreadable'])
def test_figure_of_fewer_images_than_the_file_has(case, why):
    if why == 'subset':
        results = run(case, metric=KEY, subset=6)
        tested = {example['img_id'] for example in results['examples']}
    else:
        (case / '3.png').write_bytes(b'no image')
        with pytest.raises(UnreadableImagesError) as error:
            run(case, metric=KEY)
        results = error.value.results
        tested = {100 - number for number in range(12)} - {97}
    assert len(tested) == (6 if why == 'subset' else 11)
    clean = results['models']['a']['clean']
    expected = measured(case, tested)[KEY]
    assert 0 < expected < 1
    assert clean == pytest.approx(expected, abs=5.1e-4)
    assert results['protocol']['metric'] == KEY
    assert results['models']['a']['ci95']['clean'][0] < clean


def test_metric_with_an_annotation_file_that_cannot_be_restricted(case):
    with pytest.raises(ValueError, match=r'all 12 images of its ann_file, and 6 were tested'):
        run(case, metric='coco/cup_precision', subset=6)


def test_classes(case):
    """Of ids in descending order mmdet's own table has them the wrong way round."""
    found = json.loads((case / 'all.json').read_text())
    per_class = run(case)['models']['a']['per_class']
    for one in (*found['categories'], *found['annotations']):
        key = 'category_id' if 'category_id' in one else 'id'
        one[key] = 10 - one[key]
    (case / 'all.json').write_text(json.dumps(found))
    expected = measured(case, range(101))
    assert len({expected[f'coco/{name}_precision'] for name in CLASSES[:3]}) == 3
    for name in CLASSES[:3]:
        ap = expected[f'coco/{name}_precision']
        assert per_class[name]['clean'] == pytest.approx(ap, abs=5.1e-4)
    assert per_class['fork'] == dict(clean=None, mPC=None, rPC=None)


def test_nothing_found_in_clean_images_alone(case):
    model = run(case, 'TimidDetector')['models']['a']
    assert model['clean'] == 0
    assert model['cells']['brightness']['5'] > 0.1
    assert model['rPC'] is None
    assert model['per_class']['fork'] == dict(clean=None, mPC=None, rPC=None)
    cup = model['per_class']['cup']
    assert cup['clean'] == 0
    assert cup['mPC'] > 0.1
    assert cup['rPC'] is None
