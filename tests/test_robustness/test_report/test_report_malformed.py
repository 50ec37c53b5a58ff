# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json

import pytest

from _utils.report_case import write_case
from mmdet_adasap.errors import MalformedResultsError
from mmdet_adasap.robustness.report import write_report

DROP = object()


def changed(results, path, value):
    *before, last = path
    for key in before:
        results = results[key]
    if value is DROP:
        del results[last]
    else:
        results[last] = value


class TestMalformedResults:
    @pytest.mark.parametrize(
        ('path', 'value', 'key'),
        [
            (['protocol'], DROP, 'protocol is missing'),
            (['protocol'], [], 'protocol must be an object, not an array'),
            (['protocol', 'format'], 2, 'protocol.format is another format than 1'),
            (['protocol', 'corruptions'], 'fog', 'protocol.corruptions must be an array'),
            (['protocol', 'corruptions'], [], 'protocol.corruptions is empty'),
            (['protocol', 'corruptions', 2], '../x', 'protocol.corruptions[2] is no name'),
            (['protocol', 'severities', 0], 6, 'protocol.severities[0] is 6'),
            (['protocol', 'dataset', 'images'], '20', 'protocol.dataset.images must be a whole'),
            (['protocol', 'bootstrap'], 5, 'protocol.bootstrap must be an object'),
            (['protocol', 'severities'], [1, 3], 'models.dense has severity 5, which'),
            (['reference'], 'other', 'reference is none of the models'),
            (['finished'], 1, 'finished must be true or false'),
            (['models'], None, 'models must be an object, not null'),
            (['models', 'slim', 'clean'], 'x', 'models.slim.clean must be a number, not text'),
            (['models', 'slim', 'clean'], True, 'models.slim.clean must be a number'),
            (['models', 'slim', 'mPC'], float('nan'), 'models.slim.mPC is nan'),
            (['models', 'slim', 'mPC'], 10**400, 'models.slim.mPC is 1000'),
            (['models', 'slim', 'cells', 'fog', '3'], 31.2, 'models.slim.cells.fog.3 is 31.2'),
            (['models', 'slim', 'cells', 'fog'], {'9': 0.1}, 'models.slim.cells.fog.9 is for no'),
            (
                ['models', 'slim', 'ci95', 'clean'],
                [0.4],
                'models.slim.ci95.clean must be the lower',
            ),
            (['models', 'slim', 'ci95', 'clean'], [2, 1], 'models.slim.ci95.clean must be the'),
            (['models', 'slim', 'difference', 'mPC'], {}, 'models.slim.difference.mPC.value is'),
            (['models', 'slim', 'cost', 'params'], -1, 'models.slim.cost.params is -1'),
            (
                ['models', 'slim', 'cost', 'latency_low_ms'],
                'x',
                'models.slim.cost.latency_low_ms must be a number',
            ),
            (['models', 'slim', 'checkpoint'], None, 'models.slim.checkpoint must be text'),
            (['examples', 0, 'img_id'], [1], 'examples[0].img_id must be text or a whole number'),
            (
                ['examples', 0, 'ground_truth', 'labels'],
                [],
                'examples[0].ground_truth has another',
            ),
            (['examples', 0, 'ground_truth', 'bboxes', 0], [1], 'bboxes has a box without 4'),
            (['unreadable'], {}, 'unreadable must be an array'),
            (['classes', 1], 7, 'classes[1] must be text, not a number'),
        ],
    )
    def test_names_the_file_and_the_key(self, tmp_path, path, value, key):
        results = write_case(tmp_path)
        changed(results, path, value)
        (tmp_path / 'results.json').write_text(json.dumps(results))
        with pytest.raises(MalformedResultsError) as caught:
            write_report(tmp_path)
        assert str(tmp_path / 'results.json') in str(caught.value)
        assert key in str(caught.value)
        assert not (tmp_path / 'report.html').exists()

    @pytest.mark.parametrize('text', ['', '{"protocol": {"for', '\x00', '[' * 100000, '[]', '3'])
    def test_half_a_file(self, tmp_path, text):
        (tmp_path / 'results.json').write_text(text)
        with pytest.raises(MalformedResultsError, match=r'results\.json'):
            write_report(tmp_path)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'results\.json'):
            write_report(tmp_path)

    @pytest.mark.parametrize(
        ('path', 'value', 'key'),
        [
            (
                ['models', 'slim', 'resampled'],
                [0.1, 'x'],
                'models.slim.resampled must be an array',
            ),
            (['models', 'slim', 'resampled'], [0.1, 3.0], 'models.slim.resampled has a number'),
            (['models', 'slim', 'value'], None, 'models.slim.value must be a number'),
            (['models', 'slim', 'examples'], {'x': {}}, 'models.slim.examples.x is for no number'),
            (
                ['models', 'slim', 'examples', '4'],
                {'label': 1, 'score': 0.5, 'right': True},
                'models.slim.examples.4 has boxes where there is a class, or the reverse',
            ),
        ],
    )
    def test_cells(self, tmp_path, path, value, key):
        write_case(tmp_path)
        for file in (tmp_path / 'cells').iterdir():
            cell = json.loads(file.read_text())
            changed(cell, path, value)
            file.write_text(json.dumps(cell))
        with pytest.raises(MalformedResultsError) as caught:
            write_report(tmp_path)
        assert key in str(caught.value)
        assert str(tmp_path / 'cells') in str(caught.value)
