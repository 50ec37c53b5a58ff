# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a report says in words is true whatever was tested."""

import csv
import re

import pytest

from _utils.report_case import RESAMPLES, read_page, section, write_case, write_results
from mmdet_adasap.robustness.corruptions import BENCHMARK, CORRUPTIONS
from mmdet_adasap.robustness.datasets.multi_view import CLEAN, Condition
from mmdet_adasap.robustness.report import compare, write_report
from mmdet_adasap.robustness.report.text import compare_with_clean, letter_count, shorten_names

EXTRAS = tuple(name for name in CORRUPTIONS if name not in BENCHMARK)
MINUS = '\N{MINUS SIGN}'


def render(folder):
    """Return the page, its words, and Markdown's without the escapes."""
    page = read_page(write_report(folder))
    markdown = (folder / 'report.md').read_text(encoding='utf-8').replace('\\', '')
    return page, ' '.join(page.text.split()), markdown


class TestExtraCorruptions:
    @pytest.mark.parametrize('names', [EXTRAS, EXTRAS[:2], EXTRAS[:1]])
    @pytest.mark.parametrize('intervals', [True, False])
    def test_alone(self, tmp_path, names, intervals):
        results = write_case(tmp_path, corruptions=names, intervals=intervals)
        page, words, markdown = render(tmp_path)
        verb = 'is' if len(names) == 1 else 'are'
        for text in (words, markdown):
            assert (
                'There is no mPC, rPC or mCE: they are over corruptions of the benchmark' in text
            )
            assert f'{sorted(names)[-1]} {verb} not of it.' in text
            assert 'while cells are missing' not in text
            assert 'mCE refers to' not in text
            assert 'in percent' not in text
            assert ('There are no confidence intervals' in text) is not intervals
            assert 'clean mAP (' in text  # the models are compared all the same
            assert 'mean over' not in text
        head = section(page, 'models').all('table')[0].rows[0]
        assert head == ['model', 'clean mAP', 'parameters', 'GFLOPs', 'ms an image', 'minus dense']
        # Means over severities, and a chart of each corruption.
        assert page.all('td', 'gap') == []
        titles = [svg.all('title')[0].text for svg in section(page, 'severity').all('svg')]
        assert titles == [f'P over severity: {name}' for name in sorted(names)]
        mean = results['models']['slim']['per_corruption'][names[0]]
        cells = results['models']['slim']['cells'][names[0]].values()
        assert mean == pytest.approx(sum(cells) / 3)

    def test_results_of_an_older_version(self, tmp_path):
        """It left out means by corruption and the difference of clean P."""
        results = write_case(tmp_path, corruptions=EXTRAS)
        for model in results['models'].values():
            model.update(per_corruption=None, difference=None)
        write_results(tmp_path, results)
        _, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert 'is compared with dense in no figure over all images' in text
            assert 'while cells are missing' not in text

    def test_beside_the_benchmark(self, tmp_path):
        write_case(tmp_path, corruptions=[*BENCHMARK, 'saturate'], severities=(1, 2, 3, 4, 5))
        page, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert 'saturate is not of the benchmark, and in no mPC, rPC or mCE.' in text
            assert 'not that of the whole benchmark' not in text
            assert 'mean over 15 corruptions' in text
        assert len(page.all('aside')[0].all('p')) == 1

    def test_beside_a_single_one(self, tmp_path):
        write_case(tmp_path, corruptions=['fog', 'saturate', 'spatter'], severities=(3,))
        page, words, _ = render(tmp_path)
        assert 'it is the mean over fog at severity 3.' in words
        assert 'saturate and spatter are not of the benchmark' in words
        assert 'under 3 corruptions at 1 severity' in words
        titles = [svg.all('title')[0].text for svg in section(page, 'severity').all('svg')]
        assert titles == [f'P over severity: {name}' for name in ('fog', 'saturate', 'spatter')]

    def test_two_runs(self, tmp_path):
        for name in ('a', 'b'):
            write_case(tmp_path / name, names=[name], corruptions=EXTRAS, seed=ord(name))
        compare([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out')
        text = (tmp_path / 'out' / 'report.md').read_text().replace('\\', '')
        assert re.search(rf'\*\*b\*\* .*clean mAP \([+{MINUS}]\d', text)


class TestMissing:
    def test_some_models_lack_a_cell(self, tmp_path):
        results = write_case(tmp_path)
        slim = results['models']['slim']
        del slim['cells']['fog']['3']
        slim.update(mPC=None, rPC=None, mCE=None, over=None, difference=None)
        results['finished'] = False
        write_results(tmp_path, results)
        _, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert '15 of 16 cells are there for every model. Missing: fog 3 of slim.' in text
            assert 'There is no mPC, rPC or mCE of slim while cells are missing.' in text

    def test_all_lack_them(self, tmp_path):
        write_case(tmp_path, corruptions=EXTRAS, missing=[Condition('saturate', 1)])
        _, words, _ = render(tmp_path)
        assert 'Missing: saturate 1. The same command' in words
        assert 'while cells are missing' not in words

    def test_a_file_of_one_condition(self, tmp_path):
        """Of published images, a corrupted file may be broken where the clean one is whole."""
        results = write_case(tmp_path)
        results['unreadable'] = [{'image': 'a.jpg', 'error': 'broken'}]
        write_results(tmp_path, results)
        assert '1 image could not be read, and is left out of every cell' in render(tmp_path)[1]


class TestNothingFound:
    def test_zero_everywhere(self, tmp_path):
        write_case(tmp_path, value=lambda name, condition: 0.0)
        page, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert 'Of dense and slim there is no rPC: clean mAP is 0.' in text
            assert 'nan' not in text
            assert 'inf' not in text.replace('info', '')
        assert ': 0.0, as clean' in section(page, 'worst').text
        assert 'less than clean' not in words

    def test_below_chance(self, tmp_path):
        classes = [f'class {i}' for i in range(10)]
        results = write_case(
            tmp_path, classes=classes, value=lambda name, condition: 0.0 if name == 'slim' else 0.5
        )
        results['protocol']['metric'] = 'accuracy/top1'
        results['models']['slim']['ci95']['clean'] = [0.0, 0.01]
        write_results(tmp_path, results)
        words = render(tmp_path)[1]
        assert 'slim did worse than chance (10.0 % with 10 classes)' in words
        assert 'cannot be told from chance' not in words

    def test_a_single_class_has_no_chance(self, tmp_path):
        results = write_case(tmp_path, classes=['only'])
        results['protocol']['metric'] = 'accuracy/top1'
        write_results(tmp_path, results)
        assert 'chance (' not in render(tmp_path)[1]


class TestDifferences:
    @pytest.mark.parametrize(
        ('drop', 'expected'),
        [
            (0.123, '12.3 less than clean'),
            (-0.001, '0.1 more than clean'),
            (0.0, 'as clean'),
            (0.0004, 'nearly as clean'),
            (-0.0004, 'nearly as clean'),
        ],
    )
    def test_words(self, drop, expected):
        assert compare_with_clean(drop) == expected

    def test_better_under_corruption(self, tmp_path):
        write_case(tmp_path, value=lambda name, condition: 0.6 if condition == CLEAN else 0.601)
        page, words, markdown = render(tmp_path)
        assert ': 60.1, 0.1 more than clean' in section(page, 'worst').text
        assert 'less than clean' not in words + markdown
        assert '| minus clean |' in markdown
        assert '| 60.1 (' in markdown
        assert '| +0.1 |' in markdown

    def test_some_without_interval(self, tmp_path):
        results = write_case(tmp_path)
        results['models']['slim']['difference']['rPC']['ci95'] = None
        write_results(tmp_path, results)
        words = render(tmp_path)[1]
        assert re.search(rf'Of rPC \([+{MINUS}]\d+\.\d\) there is no interval\.', words)

    def test_without_intervals(self, tmp_path):
        write_case(tmp_path, intervals=False)
        _, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert '95 %' not in text
            assert 'Bold' not in text
            assert 'Whiskers' not in text

    def test_runs_with_other_resamples(self, tmp_path):
        write_case(tmp_path / 'a', names=['a'])
        results = write_case(tmp_path / 'b', names=['b'])
        results['protocol']['bootstrap']['resamples'] = 7
        write_results(tmp_path / 'b', results)
        compare([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out')
        text = (tmp_path / 'out' / 'report.md').read_text()
        assert f'from {RESAMPLES} or 7 resamples' in text
        assert 'do not have the same resamples' in text


class TestCosts:
    def test_the_image_behind_them(self, tmp_path):
        results = write_case(tmp_path)
        _, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert 'of one image, 400 by 300 pixels; times with 1 thread.' in text
        results['models']['slim']['cost']['image'] = [512, 512]
        write_results(tmp_path, results)
        for text in render(tmp_path)[1:]:
            assert '400 by 300 pixels: dense; 512 by 512 pixels: slim' in text

    def test_the_spread_of_times(self, tmp_path):
        """In the table a range, in the chart a line through both points; CSV has it, too."""
        results = write_case(tmp_path)
        page, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert 'quartiles' not in text
        before = len(section(page, 'cost').all('line', 'spread'))
        results['models']['slim']['cost'].update(
            latency_ms=8.5, latency_low_ms=8.25, latency_high_ms=14.0
        )
        write_results(tmp_path, results)
        page, words, markdown = render(tmp_path)
        for text in (words, markdown):
            assert '8.50 (8.25 to 14.0)' in text
            assert 'ms are the median time (and its quartiles) of one image' in text
        assert 'Lines across: the middle half of all timed runs.' in words
        lines = [line.attributes for line in section(page, 'cost').all('line', 'spread')]
        assert (before, len(lines)) == (0, 2)
        for line in lines:
            assert line['y1'] == line['y2']
            left, right = float(line['x1']), float(line['x2'])
            # 14 ms are more than the median of any model: the axis reaches as far.
            assert 34 < left < right < 380
        with (tmp_path / 'report.csv').open() as file:
            found = {row['quantity']: row for row in csv.DictReader(file) if row['unit'] == 'ms'}
        assert found['latency_low_ms']['value'] == '8.25'
        assert found['latency_high_ms']['value'] == '14.0'
        assert found['latency_ms']['low'] == ''

    def test_without_times_no_time_is_explained(self, tmp_path):
        results = write_case(tmp_path)
        for model in results['models'].values():
            model['cost'].update(flops=None, latency_ms=None)
        write_results(tmp_path, results)
        for text in render(tmp_path)[1:]:
            assert 'median' not in text
            assert 'pixels' not in text

    def test_every_figure_has_its_name_where_columns_have_no_room(self, tmp_path):
        """A screen of 400 pixels has no heads of columns, but these names."""
        write_case(tmp_path)
        page, *_ = render(tmp_path)
        cells = section(page, 'models').all('table')[0].all('tr')[3].all('td')
        named = {cell.attributes['data-label']: cell.text for cell in cells}
        assert named['parameters'] == '1.00 M'
        assert named['ms an image'] == '12.5'
        assert named['mPC minus dense'][0] in f'+{MINUS}'
        assert len(named) == 10


class TestNames:
    def test_names_that_differ_in_the_middle_stay_apart(self, tmp_path):
        names = ['dense', *(f'adasap_ssd300_keep_{k}_of_the_parameters_{"x" * 18}' for k in 'abc')]
        write_case(tmp_path, names=names)
        page, *_ = render(tmp_path)
        chart = section(page, 'severity').all('svg')[0]
        labels = chart.all('text', 'own')
        # The tooltip, which is the whole name, comes first.
        whole = [label.all('title')[0].text for label in labels]
        assert set(whole) == set(names)
        shown = {label.text.removeprefix(name) for label, name in zip(labels, whole, strict=True)}
        assert len(shown) == 4

    @pytest.mark.parametrize(
        'names',
        [
            ['a' * 60, 'a' * 59 + 'b', 'dense'],
            ['x' * 30 + str(i) + 'y' * 29 for i in range(8)],
            ['犬' * 20 + c + '犬' * 20 for c in 'ab'],
            ['p' * 20 + c * 25 + 'q' + c * 25 + 's' * 20 for c in 'ab'],
            ['a' * n for n in range(17, 25)],
        ],
    )
    def test_short_names(self, names):
        shown = shorten_names(names, 16)
        assert len(set(shown.values())) == len(names)
        assert all(letter_count(one) <= 16 for one in shown.values())
