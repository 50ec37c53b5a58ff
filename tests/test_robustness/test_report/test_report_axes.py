# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import itertools

import pytest

from mmdet_adasap.robustness.report import colours
from mmdet_adasap.robustness.report.axes import axis_limits, spread_labels, ticks, upper_limit
from mmdet_adasap.robustness.report.text import (
    format_decimal,
    format_percent,
    format_significant,
    shorten,
)


class TestColours:
    @pytest.mark.parametrize('scheme', ['light', 'dark'])
    def test_words_can_be_read(self, scheme):
        found = colours.css_variables(scheme)
        for prefix in 'qd':
            for step in range(colours.RAMP_STEPS + 1):
                one, other = found[f'{prefix}{step}'], found[f'{prefix}{step}t']
                assert colours.contrast(one, other) >= 4.5
        for word in ('ink', 'soft', 'link'):
            assert colours.contrast(found[word], found['paper']) >= 4.5
        assert colours.contrast(found['alarm'], found['alarm-paper']) >= 4.5
        for number in range(colours.MODEL_COLOUR_COUNT):
            assert colours.contrast(found[f'm{number}'], found['paper']) >= 4.5

    def test_contrast_is_that_of_the_standard(self):
        assert colours.contrast('#000000', '#ffffff') == pytest.approx(21)
        assert colours.contrast('#777777', '#ffffff') == pytest.approx(4.48, abs=0.005)

    def test_a_ramp_passes_through_its_stops(self):
        stops = ['#a33b00', '#ffffff', '#0a5589']
        found = colours.ramp(stops)
        assert [found[0], found[5], found[10]] == stops

    def test_no_difference_is_in_the_middle(self):
        assert colours.diverging_class(0, 0.3) == 'd5'
        assert colours.diverging_class(-0.3, 0.3) == 'd0'
        assert colours.diverging_class(0.3, 0.3) == 'd10'
        assert colours.sequential_class(0, 0.5) == 'q0'
        assert colours.sequential_class(0.5, 0.5) == 'q10'


class TestSpread:
    @pytest.mark.parametrize(
        'wanted', [[5, 5, 5], [10, 50, 90], [99, 98, 0], [40, 41, 53, 60, 61]]
    )
    def test_labels_keep_apart_and_in_order(self, wanted):
        names = [f'n{i}' for i in range(len(wanted))]
        placed = spread_labels(dict(zip(names, wanted, strict=True)), 13, 0, 100)
        at = sorted(placed.values())
        assert all(b - a >= 13 - 1e-9 for a, b in itertools.pairwise(at))
        assert at[0] >= 0
        assert at[-1] <= 100
        for (a, x), (b, y) in itertools.combinations(zip(names, wanted, strict=True), 2):
            if x < y:
                assert placed[a] < placed[b]

    def test_labels_with_room_stay(self):
        assert spread_labels({'a': 20, 'b': 80}, 13, 0, 100) == {'a': 20, 'b': 80}


class TestAxes:
    def test_ticks_are_round(self):
        assert ticks(0, 60, 8) == [0, 10, 20, 30, 40, 50, 60]
        assert ticks(-2.3, 2.3, 5) == [-2, -1, 0, 1, 2]
        assert upper_limit(61.3) == 70
        assert axis_limits(3, 57) == (0, 60)
        assert axis_limits(51, 57) == (51, 57)
        for same in (0, 100):
            low, high = axis_limits(same, same)
            assert low < high
            assert low <= same <= high


class TestWords:
    @pytest.mark.parametrize(
        ('shown', 'expected'),
        [
            (format_percent(0.12345), '12.3'),
            (format_percent(-0.0123, signed=True), '\N{MINUS SIGN}1.2'),
            (format_percent(0.0123, signed=True), '+1.2'),
            (format_percent(0.0, signed=True), '0.0'),
            (format_decimal(None), '\N{EN DASH}'),
            (format_significant(0.13764), '0.138'),
            (format_significant(346.24), '346'),
            (format_significant(1234.5), '1,234'),
            (shorten('abcdefghij', 7), 'abc…hij'),
            (shorten('abcdefg', 7), 'abcdefg'),
        ],
    )
    def test_figures(self, shown, expected):
        assert shown == expected
