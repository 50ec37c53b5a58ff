# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Evaluators with several metrics, and with metrics that see a part of the images."""

import logging

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.evaluation import VOCMetric
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from mmdet_adasap.robustness.metrics import build_adapter, select_part
from mmdet_adasap.robustness.metrics.base import silent

META = dict(classes=('a', 'b'))
VOC, COCO = dict(type='mmdet.VOCMetric'), dict(type='mmdet.CocoMetric')


@METRICS.register_module(force=True)
class SetMetric(BaseMetric):
    """Gives the figures that it is told, each the mean of what the samples name."""

    default_prefix = 'set'

    def __init__(self, figures=('p',), prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.figures = figures

    def process(self, data_batch, data_samples):
        self.results += [sample['value'] for sample in data_samples]

    def compute_metrics(self, results):
        return {name: sum(results) / len(results) for name in self.figures}


@METRICS.register_module(force=True)
class HalfMetric(SetMetric):
    """Sees every other image."""

    def process(self, data_batch, data_samples):
        super().process(data_batch, data_samples[::2])


@METRICS.register_module(force=True)
class OwnVOCMetric(VOCMetric):
    """A user's, with the names of mmdet's."""


def value_of(evaluator, key: str, **more) -> float:
    adapter = build_adapter(evaluator, META, key, **more)
    samples = [dict(value=value) for value in (0.25, 0.5, 0.75)]
    return adapter.score(adapter.per_image(samples, None), None).value


class TestList:
    @pytest.mark.parametrize(
        ('evaluator', 'key', 'other'),
        [
            ([VOC, COCO], 'pascal_voc/mAP', 'coco/bbox_mAP'),
            ([COCO, VOC], 'coco/bbox_mAP', 'pascal_voc/mAP'),
            ([dict(VOC, prefix='a'), dict(VOC, prefix='b')], 'a/mAP', 'b/mAP'),
            (dict(metrics=[COCO, VOC]), 'coco/bbox_mAP', 'pascal_voc/mAP'),
            (dict(type='Evaluator', metrics=[COCO, VOC]), 'coco/bbox_mAP', 'pascal_voc/mAP'),
        ],
    )
    def test_the_first_and_what_was_not_taken(self, evaluator, key, other):
        adapter = build_adapter(evaluator, META)
        assert (adapter.key, adapter.others) == (key, (other,))
        second = build_adapter(evaluator, META, other)
        assert second.key == other
        assert second.metric is not adapter.metric

    @pytest.mark.parametrize(
        ('evaluator', 'key'),
        [
            ([VOC, dict(VOC, eval_mode='area')], None),
            ([VOC, dict(VOC, eval_mode='area')], 'pascal_voc/mAP'),
            ([VOC, dict(type='OwnVOCMetric')], None),
            ([dict(type='OwnVOCMetric'), VOC], 'pascal_voc/mAP'),
            ([dict(VOC, prefix='coco'), dict(COCO), dict(COCO, metric=['segm', 'bbox'])], None),
        ],
    )
    def test_two_of_one_name_are_refused(self, evaluator, key):
        if key is None and len(evaluator) == 3:
            key = 'coco/bbox_mAP'
        with pytest.raises(ValueError, match=r'test_evaluator: .* both give .* set prefix'):
            build_adapter(evaluator, META, key)

    def test_one_prefix_and_other_names(self):
        """Boxes and masks of COCO apart, mAP and recall of VOC."""
        kinds = [dict(COCO, metric='segm'), dict(COCO, metric='bbox')]
        for kind in ('bbox', 'segm'):
            adapter = build_adapter(kinds, META, f'coco/{kind}_mAP')
            assert adapter.metric.metrics == [kind]
        both = [dict(VOC, metric='recall'), VOC]
        assert build_adapter(both, META).metric.metric == 'mAP'

    @pytest.mark.parametrize('order', [1, -1])
    def test_every_metric_of_a_prefix_is_reached(self, order):
        evaluator = [
            dict(type='SetMetric', figures=('p', 'q')),
            dict(type='SetMetric', figures=('r',)),
        ][::order]
        for name in 'pqr':
            assert value_of(evaluator, f'set/{name}') == pytest.approx(0.5)
        with pytest.raises(ValueError, match=r"SetMetric and SetMetric give no 'set/s'; name one"):
            value_of(evaluator, 'set/s')

    def test_two_unknown_of_one_name_are_refused(self):
        evaluator = [dict(type='SetMetric'), dict(type='SetMetric', figures=('q', 'p'))]
        with pytest.raises(ValueError, match='both give set/p, and P is one of them; set prefix'):
            value_of(evaluator, 'set/p')
        assert value_of(evaluator, 'set/q') == pytest.approx(0.5)

    def test_one_prefix_begins_with_another(self):
        evaluator = [dict(type='SetMetric', prefix='a'), dict(type='SetMetric', prefix='a/b')]
        for key in ('a/p', 'a/b/p'):
            assert value_of(evaluator, key) == pytest.approx(0.5)

    def test_scale_is_that_of_the_metric_that_gives_it(self):
        pytest.importorskip('mmpretrain')
        evaluator = [
            dict(type='SetMetric', prefix='multi-label', figures=('share',)),
            dict(type='mmpretrain.MultiLabelMetric'),
            dict(type='mmpretrain.AveragePrecision'),
        ]
        samples = [
            dict(
                value=0.5,
                pred_score=torch.tensor([0.9, 0.2, 0.6]).roll(number),
                gt_label=torch.tensor([0, 2]),
                num_classes=3,
            )
            for number in range(3)
        ]
        for key in ('share', 'mAP', 'f1-score'):
            adapter = build_adapter(evaluator, META, f'multi-label/{key}')
            score = adapter.score(adapter.per_image(samples, None), None)
            scale = 1 if key == 'share' else 0.01
            assert score.value == pytest.approx(scale * score.metrics[f'multi-label/{key}'])
            assert 0 < score.value < 1

    def test_multi_label_voc(self):
        """As mmpretrain's configs have it: two metrics, both of them 'multi-label'."""
        pytest.importorskip('mmpretrain')
        evaluator = [
            dict(type='mmpretrain.VOCMultiLabelMetric'),
            dict(type='mmpretrain.VOCAveragePrecision'),
        ]
        samples = [
            dict(
                pred_score=torch.tensor([0.9, 0.2, 0.6]).roll(number),
                gt_label=torch.tensor([number]),
                gt_label_difficult=[0] if number == 1 else [],
            )
            for number in range(3)
        ]
        found = {}
        for key in ('mAP', 'f1-score', 'precision'):
            for one in (evaluator, evaluator[::-1]):
                adapter = build_adapter(one, META, f'multi-label/{key}')
                score = adapter.score(adapter.per_image(samples, None), None)
                assert found.setdefault(key, score.value) == score.value
                assert f'multi-label/{key}' in score.metrics
        assert len(set(found.values())) == 3

    def test_a_dump_of_results_is_not_asked(self, tmp_path):
        dump = DumpResults(str(tmp_path / 'out.pkl'))
        metric = SetMetric()
        metric.prefix = None
        assert value_of([dump, metric], 'p') == pytest.approx(0.5)
        assert not (tmp_path / 'out.pkl').exists()


class TestPartOfTheImages:
    def test_results_of_some_images_alone(self):
        with pytest.raises(ValueError, match='HalfMetric keeps 2 results of 3 images'):
            value_of([dict(type='SetMetric', prefix='all'), dict(type='HalfMetric')], 'set/p')

    def test_one_that_cannot_be_computed_is_named(self):
        with pytest.raises(ValueError, match=r"SetMetric cannot be computed \(KeyError: 'value'"):
            build_adapter(dict(type='SetMetric'), META, 'set/p').per_image([{}], None)

    @pytest.mark.parametrize('key', ['coco/bbox_mAP', 'coco/a_precision'])
    def test_annotation_file_of_other_images(self, tmp_path, key):
        file = tmp_path / 'some.json'
        file.write_text(
            '{"images": [{"id": 1, "file_name": "a/1.jpg", "width": 9, "height": 9}, '
            '{"id": 2, "file_name": "a/2.jpg", "width": 9, "height": 9}], "annotations": [], '
            '"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}'
        )
        adapter = build_adapter(dict(COCO, ann_file=str(file), classwise=True), META, key)
        here = [dict(img_id=1, img_path='x/1.png'), dict(img_id=2, img_path='x/2.jpg')]
        adapter.check_annotations(here)
        adapter.check_annotations(here[1:])
        with pytest.raises(ValueError, match=r'lacks 1 of 3 images tested \(image id 7\)'):
            adapter.check_annotations([*here, dict(img_id=7, img_path='x/7.jpg')])
        with pytest.raises(ValueError, match=r'image id 2 is a/2.jpg there and x/9.jpg in the te'):
            adapter.check_annotations([here[0], dict(img_id=2, img_path='x/9.jpg')])

    def test_annotation_file_that_is_damaged(self, tmp_path):
        file = tmp_path / 'torn.json'
        file.write_text('{"images": [')
        with pytest.raises(ValueError, match=r'test_evaluator: ann_file=.*torn.json is no JSON'):
            build_adapter([VOC, dict(COCO, ann_file=str(file))], META)


class TestMultiDatasetsEvaluator:
    LOADER = dict(
        batch_size=2,
        dataset=dict(type='ConcatDataset', datasets=[dict(type='One'), dict(type='Two')]),
    )
    EVALUATOR = dict(
        type='mmdet.MultiDatasetsEvaluator', metrics=[VOC, COCO], dataset_prefixes=['v', 'v/c']
    )

    def test_a_figure_is_of_its_part_alone(self):
        part = select_part(self.LOADER, self.EVALUATOR, 'v/pascal_voc/AP50')
        assert part.dataloader == dict(batch_size=2, dataset=dict(type='One'))
        assert part.evaluator == [VOC]
        assert part.metric == 'pascal_voc/AP50'
        part = select_part(self.LOADER, self.EVALUATOR, 'v/c/coco/bbox_mAP')
        assert part.dataloader['dataset'] == dict(type='Two')
        assert part.metric == 'coco/bbox_mAP'

    @pytest.mark.parametrize(
        ('changed', 'metric', 'message'),
        [
            ({}, None, r'a metric for each of v, v/c, .* name it with --metric, as v/pascal'),
            ({}, 'pascal_voc/mAP', 'name it with --metric'),
            (dict(dataset_prefixes=['v', 'v']), 'v/x', 'two datasets have the same prefix'),
            (dict(dataset_prefixes=['v']), 'v/x', 'there are 2 metrics and 2 datasets'),
            (dict(metrics=[VOC]), 'v/x', 'there are 1 metrics and 2 datasets'),
            (dict(type='OwnEvaluator'), 'v/x', 'test_evaluator.type=OwnEvaluator: it is not'),
        ],
    )
    def test_refused(self, changed, metric, message):
        with pytest.raises(ValueError, match=message):
            select_part(self.LOADER, {**self.EVALUATOR, **changed}, metric)

    def test_all_images_of_several_metrics_are_not_its(self):
        with pytest.raises(ValueError, match='dataset_prefixes'):
            build_adapter(self.EVALUATOR, META, 'v/pascal_voc/mAP')


def test_loggers_that_were_first_asked_inside_are_on_afterwards():
    logger = MMLogger.get_instance('first_asked_inside')
    with silent():
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logger.isEnabledFor(logging.WARNING)
    # And one that was asked before is off inside.
    with silent():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logging.root.manager.disable == logging.NOTSET
