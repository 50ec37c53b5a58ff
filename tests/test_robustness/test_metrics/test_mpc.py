# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json

import numpy as np
import pytest

from mmdet_adasap.robustness.corruptions import CORRUPTIONS, GROUPS
from mmdet_adasap.robustness.metrics.mpc import mean_performance, summarize

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
            ({'speckle_noise': {1: 0.5}}, 0.5, 'speckle_noise'),
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

    def test_zero_clean_has_no_ratio(self):
        summary = summarize(CELLS, 0.0, allow_zero_clean=True)
        assert summary['rPC'] is None
        assert summary['mPC'] == summarize(CELLS, 0.8)['mPC']


class TestMeanPerformance:
    def test_numbers_have_the_means_of_summarize(self):
        summary = summarize(CELLS, 0.8)
        for key, value in mean_performance(CELLS).items():
            assert value == summary[key], key

    def test_resamples_are_averaged_apart(self):
        shifts = np.array([0.0, 0.05, -0.1])
        cells = {
            name: {s: p + shifts for s, p in row.items()}
            for name, row in {**CELLS, 'spatter': {1: 0.5}}.items()
        }
        means = mean_performance(cells)
        for index, shift in enumerate(shifts):
            one = mean_performance(
                {name: {s: p[index] for s, p in row.items()} for name, row in cells.items()}
            )
            assert means['mPC'][index] == pytest.approx(0.4625 + shift)
            for key in ('per_corruption', 'per_group', 'per_severity'):
                assert {k: v[index] for k, v in means[key].items()} == pytest.approx(one[key])


class TestWholeBenchmark:
    """15 x 5 made up: row i is 0.9 - 0.02 i, less 0.1 for each severity behind the first."""

    NAMES = [name for names in GROUPS.values() for name in names]

    def table(self, lost: float = 0.02) -> dict:
        return {
            name: {s: 0.9 - lost * i - 0.1 * (s - 1) for s in (1, 2, 3, 4, 5)}
            for i, name in enumerate(self.NAMES)
        }

    def test_means(self):
        count = len(self.NAMES)
        summary = summarize(self.table(), clean=0.95)
        # Row i has the mean 0.7 - 0.02 i, and i is (n - 1) / 2 on average.
        assert summary['mPC'] == pytest.approx(0.7 - 0.01 * (count - 1))
        assert summary['rPC'] == pytest.approx((0.7 - 0.01 * (count - 1)) / 0.95)
        assert summary['per_severity'][5] == pytest.approx(0.5 - 0.01 * (count - 1))
        first = len(GROUPS['noise'])
        assert summary['per_group']['noise'] == pytest.approx(0.7 - 0.01 * (first - 1))
        assert summary['complete']
        assert not summary['partial']

    def test_corruption_errors(self):
        """E of row i is 0.3 + 0.02 i on average, 0.3 + 0.01 i of the reference."""
        summary = summarize(self.table(), 0.95, reference=(self.table(0.01), 0.9))
        each = [(0.3 + 0.02 * i) / (0.3 + 0.01 * i) for i in range(len(self.NAMES))]
        relative = [(0.25 + 0.02 * i) / (0.2 + 0.01 * i) for i in range(len(self.NAMES))]
        assert summary['mCE'] == pytest.approx(100 * sum(each) / len(each))
        assert summary['relative_mCE'] == pytest.approx(100 * sum(relative) / len(relative))
        assert summary['CE'][self.NAMES[1]] == pytest.approx(100 * 0.32 / 0.31)

    def test_ratio_of_sums_is_no_mean_of_ratios(self):
        summary = summarize(
            {'fog': {1: 0.9, 2: 0.5}}, 1.0, reference=({'fog': {'1': 0.8, '2': 0.2}}, 1.0)
        )
        assert summary['mCE'] == pytest.approx(100 * 0.6 / 1.0)  # not (0.5 + 0.625) / 2

    def test_reference_is_100(self):
        summary = summarize(self.table(), 0.95, reference=(self.table(), 0.95))
        assert summary['mCE'] == summary['relative_mCE'] == 100

    def test_reference_without_errors(self):
        perfect = ({'fog': {1: 1.0}}, 1.0)
        summary = summarize({'fog': {1: 0.5}}, 1.0, reference=perfect)
        assert summary['mCE'] is None
        assert summary['relative_mCE'] is None

    def test_reference_of_other_cells(self):
        with pytest.raises(ValueError, match=r"reference\['fog'\] has severities \[2\]"):
            summarize({'fog': {1: 0.5}}, 1.0, reference=({'fog': {2: 0.5}}, 1.0))

    def test_severities_that_no_corruption_has_yet_are_missing(self):
        table = {name: {1: row[1]} for name, row in self.table().items()}
        summary = summarize(table, 0.95, partial=True, severities=range(1, 6))
        assert summary['partial']
        assert not summary['complete']
        assert summary['missing'] == {name: [2, 3, 4, 5] for name in self.NAMES}
        with pytest.raises(ValueError, match=r'lacks severity \[2, 3, 4, 5\]'):
            summarize(table, 0.95, severities=range(1, 6))

    def test_partial_is_marked(self):
        table = self.table()
        del table['fog'][2], table['fog'][5]
        with pytest.raises(ValueError, match=r"'fog'\] lacks severity \[2, 5\]"):
            summarize(table, 0.95)
        summary = summarize(table, 0.95, partial=True)
        row = self.NAMES.index('fog')
        assert summary['partial']
        assert not summary['complete']
        assert summary['missing'] == {'fog': [2, 5]}
        # 1, 3 and 4 lie 1.67 behind the first on average, not 2.
        assert summary['per_corruption']['fog'] == pytest.approx(0.9 - 0.02 * row - 0.1 * 5 / 3)
        count = len(self.NAMES)
        whole = 0.7 - 0.01 * (count - 1)
        assert summary['mPC'] == pytest.approx(whole + (0.2 - 0.5 / 3) / count)

    def test_some_corruptions_are_not_the_benchmark(self):
        summary = summarize({'fog': self.table()['fog']}, 0.95)
        assert not summary['complete']
        assert not summary['partial']
        assert summary['corruptions'] == ['fog']

    def test_extras_are_in_no_mean(self, monkeypatch):
        monkeypatch.setitem(CORRUPTIONS, 'speckle_noise', None)
        table = self.table()
        with_extra = summarize({**table, 'speckle_noise': dict.fromkeys(range(1, 6), 0.1)}, 0.95)
        without = summarize(table, 0.95)
        for key in ('mPC', 'rPC', 'per_group', 'per_severity', 'complete'):
            assert with_extra[key] == without[key]
        assert with_extra['per_corruption']['speckle_noise'] == pytest.approx(0.1)
