# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json

import pytest

from mmdet_adasap.evaluation import summarize

CELLS = {
    'gaussian_noise': {1: 0.60, 3: 0.40, 5: 0.20},
    'fog': {1: 0.70, 3: 0.60, 5: 0.50},
    'contrast': {1: 0.50, 3: 0.30, 5: 0.10},
    'jpeg_compression': {1: 0.60, 3: 0.55, 5: 0.50},
}


class TestSummarize:
    def test_by_hand(self):
        summary = summarize(CELLS, clean=0.8)
        # Rows: 1.2/3, 1.8/3, 0.9/3, 1.65/3 = 0.4, 0.6, 0.3, 0.55; their mean 1.85/4.
        assert summary['mPC'] == pytest.approx(0.4625)
        assert summary['rPC'] == pytest.approx(0.578125)
        assert summary['per_corruption'] == pytest.approx(
            {'gaussian_noise': 0.4, 'fog': 0.6, 'contrast': 0.3, 'jpeg_compression': 0.55}
        )
        assert summary['per_severity'] == pytest.approx({1: 0.6, 3: 0.4625, 5: 0.325})
        assert summary['per_group'] == pytest.approx(
            {'noise': 0.4, 'weather': 0.6, 'digital': 0.425}
        )

    def test_severities_may_be_text(self):
        again = json.loads(json.dumps(CELLS))
        assert summarize(again, clean=0.8) == summarize(CELLS, clean=0.8)

    def test_nothing_lost_is_one(self):
        assert summarize({'fog': {3: 0.7}}, clean=0.7)['rPC'] == pytest.approx(1)

    @pytest.mark.parametrize(
        ('cells', 'clean', 'message'),
        [
            ({}, 0.5, 'cells is empty'),
            ({'fog': {}}, 0.5, "cells\\['fog'\\] lacks severity"),
            ({'fog': {1: 0.5, 2: 0.4}, 'contrast': {1: 0.5}}, 0.5, r"'contrast'\] lacks .*\[2\]"),
            ({'fug': {1: 0.5}}, 0.5, "'fug' is unknown; use one of .*'fog'"),
            ({'fog': {6: 0.5}}, 0.5, 'severity 6 must be 1 to 5'),
            ({'fog': {1: 50.0}}, 0.5, r"cells\['fog'\]\[1\]=50.0 must be a fraction"),
            ({'fog': {1: float('nan')}}, 0.5, 'must be a fraction'),
            ({'fog': {1: None}}, 0.5, 'must be a fraction'),
            ({'fog': {1: 0.5}}, 50.0, 'clean=50.0 must be a fraction'),
            ({'fog': {1: 0.5}}, 0.0, 'clean=0'),
        ],
    )
    def test_refuses(self, cells, clean, message):
        with pytest.raises(ValueError, match=message):
            summarize(cells, clean)
