# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric


@METRICS.register_module()
class ScoreSum(BaseMetric):
    """Adds up scores and boxes: any other weight anywhere gives another number."""

    def process(self, data_batch: object, data_samples: list) -> None:
        for sample in data_samples:
            found = sample['pred_instances']
            self.results.append(
                (found['scores'].double().sum().item(), found['bboxes'].double().sum().item())
            )

    def compute_metrics(self, results: list) -> dict:
        scores, boxes = map(sum, zip(*results, strict=True))
        return dict(scores=scores, boxes=boxes)
