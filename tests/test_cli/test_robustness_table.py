# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The words below the table that ``adasap robustness`` prints."""

import pytest

from _utils.report_case import write_case
from mmdet_adasap.cli.robustness_table import format_table
from mmdet_adasap.robustness.corruptions import BENCHMARK

ALL = (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ('corruptions', 'severities', 'intervals', 'there', 'not_there'),
    [
        (
            ['saturate'],
            (3,),
            False,
            ['1 corruption, severities 3; ', 'no intervals', 'saturate is not of it.'],
            ['resamples', 'mCE refers', 'these alone'],
        ),
        (
            ['fog', 'saturate'],
            ALL,
            True,
            ['50 resamples', 'mCE refers to dense', 'mean over fog at', 'saturate is not of the'],
            ['these alone', 'There is no mPC'],
        ),
        (
            [*BENCHMARK, 'saturate', 'spatter'],
            ALL,
            True,
            ['17 corruptions', 'saturate and spatter are not of the benchmark'],
            ['these alone', 'whole benchmark'],
        ),
        (['fog'], ALL, True, ['mPC is over these alone'], ['saturate', 'There is no mPC']),
        (BENCHMARK, ALL, True, ['15 corruptions'], ['over', 'There is no mPC']),
    ],
)
def test_words(tmp_path, corruptions, severities, intervals, there, not_there):
    results = write_case(
        tmp_path, corruptions=corruptions, severities=severities, intervals=intervals
    )
    for model in results['models'].values():
        model['shifts'] = {}
    text = format_table(results)
    assert [words for words in there if words not in text] == []
    assert [words for words in not_there if words in text] == []
