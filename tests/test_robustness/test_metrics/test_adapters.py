# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""P, per class and resampled, beside what mmdet and pycocotools compute."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.evaluation import eval_map
from mmengine.evaluator import BaseMetric
from mmengine.structures import InstanceData

from mmdet_adasap.robustness.metrics import PlainMetricAdapter, build_adapter
from mmdet_adasap.robustness.metrics.base import compute, detection_example, process
from mmdet_adasap.robustness.metrics.bootstrap import image_weights, interval
from mmdet_adasap.robustness.metrics.coco import FIGURES

CLASSES = tuple('abcde')
META = dict(classes=CLASSES)


def boxes(rng, count: int) -> torch.Tensor:
    corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(10, 50, (count, 2))
    return torch.tensor(np.hstack([corner, corner + size]), dtype=torch.float32)


def sample(rng, number: int, rounded: bool, classes: int = 4) -> dict:
    """An image with objects, ignored ones, good and bad detections; class e has no object."""
    truth, ignored = boxes(rng, rng.integers(0, 4)), boxes(rng, rng.integers(0, 2))
    labels = torch.tensor(rng.integers(0, classes, len(truth)))
    noise = torch.tensor(rng.normal(0, 3, (len(truth), 4)), dtype=torch.float32)
    more = boxes(rng, rng.integers(0, 12))
    scores = torch.tensor(rng.random(2 * len(truth) + len(more)), dtype=torch.float32)
    return dict(
        img_id=number,
        ori_shape=(110, 110),
        pred_instances=dict(
            bboxes=torch.cat([truth + noise, truth - noise, more]),
            scores=(scores * 10).round() / 10 if rounded else scores,
            labels=torch.cat([labels, labels, torch.tensor(rng.integers(0, 5, len(more)))]).long(),
        ),
        gt_instances=dict(bboxes=truth, labels=labels),
        ignored_instances=dict(
            bboxes=ignored, labels=torch.tensor(rng.integers(0, classes, len(ignored)))
        ),
        instances=[
            dict(bbox=box.tolist(), bbox_label=int(label), ignore_flag=0)
            for box, label in zip(truth, labels, strict=True)
        ],
    )


def samples(count: int = 60, seed: int = 0, rounded: bool = False) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [sample(rng, number, rounded) for number in range(count)]


def by_eval_map(adapter, images: list[dict], iou: float) -> tuple[float, list]:
    truths, found = zip(*process(adapter.metric, images, None), strict=True)
    return eval_map(
        found,
        truths,
        iou_thr=iou,
        logger='silent',
        eval_mode=adapter.metric.eval_mode,
        use_legacy_coordinate=True,
    )


class TestVOC:
    @pytest.mark.parametrize('mode', ['11points', 'area'])
    @pytest.mark.parametrize('rounded', [False, True], ids=['', 'ties'])
    def test_equals_eval_map(self, mode, rounded):
        images = samples(rounded=rounded)
        adapter = build_adapter(
            dict(type='mmdet.VOCMetric', eval_mode=mode, iou_thrs=[0.5, 0.7]), META
        )
        score = adapter.score(adapter.per_image(images, None), None)
        expected, each = zip(
            *(by_eval_map(adapter, images, iou) for iou in (0.5, 0.7)), strict=True
        )
        assert 0.1 < score.value < 0.9
        assert score.value == pytest.approx(sum(expected) / 2, abs=1e-12)
        assert score.metrics['pascal_voc/AP70'] == pytest.approx(expected[1], abs=1e-12)
        assert score.per_class['e'] is None
        for number, name in enumerate(CLASSES[:4]):
            ap = (each[0][number]['ap'] + each[1][number]['ap']) / 2
            assert score.per_class[name] == pytest.approx(ap, abs=1e-7)

    @pytest.mark.parametrize('mode', ['11points', 'area'])
    def test_resample_is_an_evaluation_of_repeated_images(self, mode):
        images = samples(30)
        adapter = build_adapter(dict(type='mmdet.VOCMetric', eval_mode=mode), META)
        weights = image_weights(30, 600, seed=3)
        assert (weights.sum(axis=1) == 30).all()
        resampled = adapter.score(adapter.per_image(images, None), weights).resampled
        for row in (0, 1, 599):
            repeated = [
                image for i, image in enumerate(images) for _ in range(int(weights[row, i]))
            ]
            expected, _ = by_eval_map(adapter, repeated, 0.5)
            assert resampled[row] == pytest.approx(expected, abs=1e-6)

    def test_a_resample_without_a_class(self):
        images = samples(4)
        adapter = build_adapter(dict(type='mmdet.VOCMetric'), META)
        weights = np.array([[4, 0, 0, 0], [0, 0, 0, 4], [0, 2, 2, 0]], np.float32)
        resampled = adapter.score(adapter.per_image(images, None), weights).resampled
        for row, chosen in enumerate(([0] * 4, [3] * 4, [1, 1, 2, 2])):
            expected, _ = by_eval_map(adapter, [images[i] for i in chosen], 0.5)
            assert resampled[row] == pytest.approx(expected, abs=1e-6)

    def test_nothing_found(self):
        images = samples(5)
        for image in images:
            image['pred_instances'] = dict(
                bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long()
            )
        adapter = build_adapter(dict(type='mmdet.VOCMetric'), META)
        score = adapter.score(adapter.per_image(images, None), image_weights(5, 10, 0))
        assert score.value == 0
        assert not score.resampled.any()

    def test_another_mmdet_would_be_noticed(self):
        images = samples(5)
        adapter = build_adapter(dict(type='mmdet.VOCMetric'), META)
        score = adapter.score(adapter.per_image(images, None), None)
        adapter.check(images, score)
        with pytest.raises(RuntimeError, match='VOCMetric of this mmdet computes'):
            adapter.check(images, score._replace(value=score.value + 1e-6))

    def test_pipeline_without_annotations(self):
        adapter = build_adapter(dict(type='mmdet.VOCMetric'), META)
        image = samples(1)[0]
        del image['gt_instances']
        with pytest.raises(ValueError, match=r'gives no gt_instances.*LoadAnnotations'):
            adapter.per_image([image], None)


class TestCoco:
    def test_is_unrounded(self):
        images = samples(40)
        adapter = build_adapter(dict(type='mmdet.CocoMetric'), META)
        score = adapter.score(adapter.per_image(images, None), np.ones((1, 40), np.float32))
        rounded = compute(adapter.metric, adapter.per_image(images, None))['coco/bbox_mAP']
        assert score.value == pytest.approx(rounded, abs=5.1e-4)
        assert score.value != rounded
        # With all images once, what resamples is COCO's own mAP.
        assert score.resampled[0] == pytest.approx(score.value, abs=1e-12)
        known = [ap for ap in score.per_class.values() if ap is not None]
        assert score.per_class['e'] is None
        assert np.mean(known) == pytest.approx(score.value, abs=1e-12)

    def test_resample_is_an_evaluation_of_repeated_images(self):
        images = samples(20)
        adapter = build_adapter(dict(type='mmdet.CocoMetric'), META)
        weights = image_weights(20, 300, seed=5)
        resampled = adapter.score(adapter.per_image(images, None), weights).resampled
        for row in (0, 299):
            chosen = [i for i in range(20) for _ in range(int(weights[row, i]))]
            repeated = [{**images[i], 'img_id': number} for number, i in enumerate(chosen)]
            expected = adapter.score(adapter.per_image(repeated, None), None).value
            assert resampled[row] == pytest.approx(expected, abs=1e-9)

    def test_subset_is_not_compared_with_the_whole_annotation_file(self, tmp_path):
        images = samples(20)
        adapter = build_adapter(dict(type='mmdet.CocoMetric'), META)
        truths = [truth for truth, _ in adapter.per_image(images, None)]
        adapter.metric.dataset_meta = META
        file = adapter.metric.gt_to_coco_json(truths, str(tmp_path / 'all'))
        from_file = build_adapter(dict(type='mmdet.CocoMetric', ann_file=file), META)
        for chosen in (images[3:9], images):
            expected = adapter.score(adapter.per_image(chosen, None), None)
            found = from_file.score(from_file.per_image(chosen, None), None)
            assert found.value == pytest.approx(expected.value, abs=1e-12)

    @pytest.mark.parametrize('name', FIGURES)
    def test_every_figure_is_of_the_images_tested_alone(self, tmp_path, name):
        """Unrounded, beside what CocoMetric makes of a file with no other images."""
        images = [larger(image) if image['img_id'] % 2 else image for image in samples(24)]
        evaluator = dict(
            type='mmdet.CocoMetric', metric_items=list(FIGURES), proposal_nums=(1, 5, 100)
        )
        everything = dict(evaluator, ann_file=write_annotations(images, tmp_path / 'all.json'))
        chosen = images[:15]
        few = dict(evaluator, ann_file=write_annotations(chosen, tmp_path / 'few.json'))
        adapter = build_adapter(everything, META, f'coco/bbox_{name}')
        weights = np.ones((1, 15), np.float32) if adapter.resamples else None
        score = adapter.score(adapter.per_image(chosen, None), weights)
        alone = build_adapter(few, META).metric
        expected = compute(alone, process(alone, chosen, None))[f'coco/bbox_{name}']
        assert 0 < expected < 1
        assert score.value == pytest.approx(expected, abs=5.1e-4)
        assert adapter.resamples == name.startswith('mAP')
        assert score.value != expected or not adapter.resamples
        assert score.metrics[f'coco/bbox_{name}'] == score.value
        known = [p for p in score.per_class.values() if p is not None]
        if adapter.resamples:
            assert score.resampled[0] == pytest.approx(score.value, abs=1e-12)
        if name in ('mAP', 'mAP_50', 'mAP_75'):
            assert np.mean(known) == pytest.approx(score.value, abs=1e-12)

    @pytest.mark.parametrize('name', ['mAP_50', 'mAP_m'])
    def test_a_resampled_figure_is_that_of_repeated_images(self, name):
        images = samples(20)
        adapter = build_adapter(dict(type='mmdet.CocoMetric'), META, f'coco/bbox_{name}')
        weights = image_weights(20, 3, seed=5)
        resampled = adapter.score(adapter.per_image(images, None), weights).resampled
        for row in range(3):
            chosen = [i for i in range(20) for _ in range(int(weights[row, i]))]
            repeated = [{**images[i], 'img_id': number} for number, i in enumerate(chosen)]
            expected = adapter.score(adapter.per_image(repeated, None), None).value
            assert resampled[row] == pytest.approx(expected, abs=1e-9)

    def test_second_kind_of_a_metric(self):
        """Masks that are no boxes."""
        images = samples(12)
        for image in images:
            found, boxes_of_truth = image['pred_instances'], image['instances']
            found['masks'] = torch.stack([mask_of(box) for box in found['bboxes']])
            for one in boxes_of_truth:
                one['mask'] = encoded(mask_of(one['bbox']))
        evaluator = dict(type='mmdet.CocoMetric', metric=['bbox', 'segm'])
        values = {}
        for kind in ('bbox', 'segm'):
            adapter = build_adapter(evaluator, META, f'coco/{kind}_mAP_75')
            score = adapter.score(adapter.per_image(images, None), None)
            rounded = compute(adapter.metric, adapter.per_image(images, None))
            assert score.value == pytest.approx(rounded[f'coco/{kind}_mAP_75'], abs=5.1e-4)
            values[kind] = score.value
        assert values['bbox'] != values['segm']

    @pytest.mark.parametrize(
        ('changed', 'key', 'message'),
        [
            (dict(proposal_nums=(1, 10, 50)), None, r'proposal_nums=\[1, 10, 50\] lacks 100'),
            (dict(iou_thrs=[0.5, 0.6]), 'coco/bbox_mAP_75', 'lacks 0.75'),
        ],
    )
    def test_figure_that_the_settings_leave_out(self, changed, key, message):
        with pytest.raises(ValueError, match=message):
            build_adapter(dict(type='mmdet.CocoMetric', **changed), META, key)

    def test_figure_without_objects(self):
        images = samples(6)
        adapter = build_adapter(dict(type='mmdet.CocoMetric'), META, 'coco/bbox_mAP_l')
        with pytest.raises(ValueError, match=r'mAP_l is not defined: .* have no large objects'):
            adapter.score(adapter.per_image(images, None), None)

    def test_classes_as_mmdet_names_them(self, tmp_path):
        """Whatever the order of the config's classes."""
        images = samples(30)
        file = write_annotations(images, tmp_path / 'all.json')
        other = dict(classes=('d', 'b', 'e', 'a', 'c'))
        metric = dict(type='mmdet.CocoMetric', ann_file=file, classwise=True)
        adapter = build_adapter(metric, other)
        score = adapter.score(adapter.per_image(images, None), None)
        expected = compute(adapter.metric, adapter.per_image(images, None))
        assert list(score.per_class) == list(other['classes'])
        assert score.per_class.pop('e') is None
        assert len({round(ap, 3) for ap in score.per_class.values()}) == 4
        for name, ap in score.per_class.items():
            assert ap == pytest.approx(expected[f'coco/{name}_precision'], abs=5.1e-4)

    def test_classes_of_a_file_with_descending_ids(self, tmp_path):
        """Where mmdet's own table has them the wrong way round."""
        images = samples(30)
        values = []
        for name, ids in (('up', [1, 2, 3, 4, 5]), ('down', [50, 40, 30, 20, 10])):
            file = write_annotations(images, tmp_path / f'{name}.json', ids)
            adapter = build_adapter(dict(type='mmdet.CocoMetric', ann_file=file), META)
            values.append(adapter.score(adapter.per_image(images, None), None).per_class)
        assert values[0] == values[1]

    @pytest.mark.parametrize('name', ['mAP', 'mAP_s'])
    def test_nothing_found(self, tmp_path, name):
        """Classes without objects have no AP, found or not."""
        images = samples(20)
        file = write_annotations(images, tmp_path / 'all.json')
        adapter = build_adapter(
            dict(type='mmdet.CocoMetric', ann_file=file), META, f'coco/bbox_{name}'
        )
        usual = adapter.score(adapter.per_image(images, None), None)
        blind = [dict(image, pred_instances=nothing()) for image in images]
        score = adapter.score(adapter.per_image(blind, None), image_weights(20, 10, 0))
        assert score.value == 0
        assert not score.resampled.any()
        assert 'e' in usual.per_class
        for each, ap in usual.per_class.items():
            assert score.per_class[each] == (None if ap is None else 0)


def nothing() -> dict:
    return dict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long())


def larger(image: dict) -> dict:
    """The same, three times as large."""
    found, instances = image['pred_instances'], image['instances']
    return dict(
        image,
        pred_instances=dict(found, bboxes=3 * found['bboxes']),
        instances=[dict(one, bbox=[3 * side for side in one['bbox']]) for one in instances],
    )


def mask_of(box: Sequence[float]) -> torch.Tensor:
    """An ellipse in a box of an image of 110 pixels."""
    y, x = torch.meshgrid(torch.arange(110.0), torch.arange(110.0), indexing='ij')
    x1, y1, x2, y2 = (float(side) for side in box)
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 < 1


def encoded(mask: torch.Tensor) -> dict:
    from pycocotools import mask as coding

    return coding.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def write_annotations(
    images: Sequence[dict], file: Path, ids: Sequence[int] = (1, 2, 3, 4, 5)
) -> str:
    """COCO's file for images; the category of label i, in the file's order, has ``ids[i]``."""
    annotations = []
    for image in images:
        for one in image['instances']:
            x1, y1, x2, y2 = one['bbox']
            sides = x2 - x1, y2 - y1
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['img_id'],
                    category_id=ids[one['bbox_label']],
                    bbox=[x1, y1, *sides],
                    area=sides[0] * sides[1],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in zip(ids, CLASSES, strict=True)]
    listed = [dict(id=i['img_id'], width=110, height=110, file_name='') for i in images]
    file.write_text(
        json.dumps(dict(images=listed, categories=categories, annotations=annotations))
    )
    return str(file)


class Named(BaseMetric):
    """A figure that the samples name."""

    default_prefix = 'named'

    def process(self, data_batch, data_samples):
        self.results += [sample['value'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(figure=float(np.mean(results)))


class TestOtherMetrics:
    def named(self, value: float, **scale) -> float:
        adapter = PlainMetricAdapter(Named(), 'named/figure', **scale)
        return adapter.score(adapter.per_image([dict(value=value)] * 3, None), None).value

    def test_one_that_is_named(self):
        images = samples(20)
        evaluator = dict(type='mmdet.CocoMetric', classwise=True)
        adapter = build_adapter(evaluator, META, 'coco/a_precision')
        usual = build_adapter(evaluator, META)
        for chosen in (images, images[:8], images):
            score = adapter.score(adapter.per_image(chosen, None), None)
            expected = usual.score(usual.per_image(chosen, None), None).per_class['a']
            assert score.value == pytest.approx(expected, abs=5.1e-4)
            assert score.resampled is None

    def test_nothing_found(self):
        images = [dict(image, pred_instances=nothing()) for image in samples(5)]
        evaluator = dict(type='mmdet.CocoMetric', classwise=True)
        adapter = build_adapter(evaluator, META, 'coco/a_precision')
        assert adapter.score(adapter.per_image(images, None), None).value == 0

    def test_annotation_file_of_more_images(self, tmp_path):
        images = samples(8)
        file = write_annotations(images, tmp_path / 'all.json')
        evaluator = dict(type='mmdet.CocoMetric', classwise=True, ann_file=file)
        adapter = build_adapter(evaluator, META, 'coco/a_precision')
        adapter.check_images(8)
        assert 0 < adapter.score(adapter.per_image(images, None), None).value < 1
        message = r'CocoMetric compares with all 8 images of its ann_file, and 7 were tested'
        with pytest.raises(ValueError, match=message):
            adapter.check_images(7)
        with pytest.raises(ValueError, match=message):
            adapter.score(adapter.per_image(images[:7], None), None)

    def test_annotation_file_with_a_line_for_each_image(self, tmp_path):
        file = tmp_path / 'all.odgt'
        file.write_text('{"ID": "a"}\n{"ID": "b"}\n')
        metric = dict(type='mmdet.CrowdHumanMetric', ann_file=str(file))
        adapter = build_adapter(metric, META, 'crowd_human/mAP')
        adapter.check_images(2)
        with pytest.raises(ValueError, match='all 2 images of its ann_file, and 1 '):
            adapter.check_images(1)

    def test_percents(self):
        assert self.named(43.0, scale=0.01) == pytest.approx(0.43)
        # As float32 has it.
        assert self.named(100.00001, scale=0.01) == 1
        for value, scale in (
            (43.0, {}),
            (-1.0, {}),
            (float('nan'), {}),
            (430.0, dict(scale=0.01)),
        ):
            with pytest.raises(ValueError, match=r'named/figure is .* in percent the scale is 0'):
                self.named(value, **scale)

    @pytest.mark.parametrize(
        ('evaluator', 'key', 'scale'),
        [
            (dict(type='mmdet.VOCMetric', metric='recall'), 'pascal_voc/recall@100@0.5', 1),
            (dict(type='mmpretrain.Accuracy', topk=(1, 5)), 'accuracy/top5', 0.01),
            (dict(type='mmpretrain.SingleLabelMetric'), 'single-label/f1-score', 0.01),
            (dict(type='mmpretrain.AveragePrecision', prefix='a'), 'a/mAP', 0.01),
        ],
    )
    def test_known_scales(self, evaluator, key, scale):
        if evaluator['type'].startswith('mmpretrain'):
            pytest.importorskip('mmpretrain')
        assert build_adapter(evaluator, META, key).scale == scale
        assert build_adapter(evaluator, META, key, scale=0.5).scale == 0.5

    def test_known_scale_of_a_metric_that_needs_another_package(self):
        kind = pytest.importorskip('mmdet.evaluation').CocoPanopticMetric
        assert PlainMetricAdapter(object.__new__(kind), 'coco_panoptic/PQ').scale == 0.01

    @pytest.mark.parametrize(
        ('evaluator', 'key', 'scale', 'message'),
        [
            (dict(type='mmdet.VOCMetric', metric='recall'), None, None, 'it is not known which'),
            (dict(type='mmdet.VOCMetric'), 'coco/bbox_mAP', None, 'none of that prefix'),
            (dict(type='mmdet.VOCMetric'), None, 0.01, 'pascal_voc/mAP is a fraction here'),
            (dict(type='mmdet.VOCMetric'), 'pascal_voc/x', 0, '--scale: 0 must be'),
        ],
    )
    def test_refused(self, evaluator, key, scale, message):
        with pytest.raises(ValueError, match=message):
            build_adapter(evaluator, META, key, scale)

    def test_figure_that_is_not_there(self):
        adapter = build_adapter(dict(type='mmdet.CocoMetric'), META, 'coco/mean')
        with pytest.raises(ValueError, match="gives no 'coco/mean'; name one of coco/bbox_mAP"):
            adapter.score(adapter.per_image(samples(5), None), None)


class TestAccuracy:
    @pytest.mark.parametrize('threshold', [None, 0.0, 0.4])
    def test_of_scores_that_are_no_probabilities(self, threshold):
        """A first guess that scores no more than the threshold is wrong."""
        pytest.importorskip('mmpretrain')
        rng = np.random.default_rng(0)
        images = [
            dict(
                pred_score=torch.tensor(rng.normal(-0.2, 0.5, 3), dtype=torch.float32),
                gt_label=torch.tensor([int(rng.integers(3))]),
            )
            for _ in range(40)
        ]
        adapter = build_adapter(
            dict(type='mmpretrain.Accuracy', thrs=threshold), dict(classes=('a', 'b', 'c'))
        )
        score = adapter.score(adapter.per_image(images, None), None)
        assert adapter.resamples
        adapter.check(images, score)
        assert 0 < score.value < 1


def test_boxes_that_are_no_place_are_not_shown():
    found = InstanceData(
        bboxes=torch.tensor([[1.0, 2, 3, 4], [0, 0, np.inf, 1], [0, np.nan, 1, 1]]),
        scores=torch.tensor([0.2, 0.9, 0.8]),
        labels=torch.tensor([1, 2, 3]),
    )
    assert detection_example(dict(pred_instances=found)) == {
        'bboxes': [[1.0, 2.0, 3.0, 4.0]],
        'scores': [0.2],
        'labels': [1],
    }


class TestInterval:
    def test_of_a_mean_is_the_textbooks(self):
        """For a mean the standard error is known: sd / sqrt(n)."""
        values = np.random.default_rng(0).normal(0.5, 0.1, 400)
        means = image_weights(400, 4000, seed=1) @ values / 400
        low, high = interval(means, values.mean())
        error = values.std() / 20
        assert (low + high) / 2 == pytest.approx(values.mean())
        assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)

    def test_is_cut_off(self):
        assert interval(np.array([0.0, 1.0]), 0.9, (0, 1))[1] == 1
