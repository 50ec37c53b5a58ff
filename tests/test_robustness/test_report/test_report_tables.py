# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import csv
import math

import pytest

from _utils.report_case import SEVERITIES, write_case
from mmdet_adasap.robustness.corruptions import GROUPS
from mmdet_adasap.robustness.datasets.multi_view import Condition
from mmdet_adasap.robustness.report import write_report
from mmdet_adasap.robustness.report.markdown import escape_markdown


def read_rows(folder):
    write_report(folder)
    with (folder / 'report.csv').open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


class TestCsv:
    def test_cells_come_back_exactly(self, tmp_path):
        results = write_case(tmp_path, names=['dense', 'a, "b"'], seed=5)
        rows = [r for r in read_rows(tmp_path) if r['quantity'] == 'P' and not r['class']]
        for name, model in results['models'].items():
            own = [row for row in rows if row['model'] == name]
            cells, ends = {}, {}
            for row in own[1:]:
                assert row['corruption'] in GROUPS[row['group']]
                pair = [float(row['low']), float(row['high'])]
                cells.setdefault(row['corruption'], {})[row['severity']] = float(row['value'])
                ends.setdefault(row['corruption'], {})[row['severity']] = pair
            assert cells == model['cells']
            assert ends == model['ci95']['cells']
            assert (own[0]['corruption'], own[0]['severity']) == ('none', '0')
            assert float(own[0]['value']) == model['clean']

    def test_means_and_differences(self, tmp_path):
        results = write_case(tmp_path)
        rows = read_rows(tmp_path)
        slim = results['models']['slim']
        for key in ('mPC', 'rPC'):
            row = next(
                r for r in rows if (r['model'], r['quantity'], r['class']) == ('slim', key, '')
            )
            found = [float(row[c]) for c in ('difference', 'difference_low', 'difference_high')]
            figure = slim['difference'][key]
            assert found == [figure['value'], *figure['ci95']]
            assert float(row['value']) == slim[key]
        mce = next(r for r in rows if (r['model'], r['quantity']) == ('slim', 'mCE'))
        assert float(mce['value']) == slim['mCE']
        fog = next(r for r in rows if r['model'] == 'slim' and r['corruption'] == 'fog')
        expected = slim['cells']['fog']['1'] - results['models']['dense']['cells']['fog']['1']
        assert float(fog['difference']) == expected
        assert float(fog['difference_low']) < expected < float(fog['difference_high'])

    def test_missing_cells_have_no_value(self, tmp_path):
        write_case(tmp_path, missing=[Condition('fog', 3)])
        rows = [r for r in read_rows(tmp_path) if (r['corruption'], r['severity']) == ('fog', '3')]
        assert [(r['model'], r['value'], r['low']) for r in rows] == [
            ('dense', '', ''),
            ('slim', '', ''),
        ]

    def test_a_name_is_no_formula(self, tmp_path):
        write_case(tmp_path, names=['=1+1', '@x'])
        assert {row['model'] for row in read_rows(tmp_path)} == {"'=1+1", "'@x"}


class TestMarkdown:
    def test_tables_have_as_many_columns_in_every_row(self, tmp_path):
        write_case(tmp_path, names=['dense', 'a|b\nc'])
        write_report(tmp_path)
        blocks = (tmp_path / 'report.md').read_text(encoding='utf-8').strip().split('\n\n')
        tables = [block.split('\n') for block in blocks if block.startswith('|')]
        assert len(tables) == 8
        for table in tables:
            widths = {row.replace('\\|', '').count('|') for row in table}
            assert len(widths) == 1

    def test_cells(self, tmp_path):
        results = write_case(tmp_path)
        write_report(tmp_path)
        text = (tmp_path / 'report.md').read_text(encoding='utf-8')
        for model in results['models'].values():
            values = [f'{100 * model["cells"]["fog"][str(s)]:.1f}' for s in SEVERITIES]
            assert f'| fog | weather | {" | ".join(values)} | ' in text

    def test_missing(self, tmp_path):
        write_case(tmp_path, names=['dense'], missing=[Condition('fog', 1)])
        write_report(tmp_path)
        text = (tmp_path / 'report.md').read_text(encoding='utf-8')
        assert '> **Note:** The run is not finished: 15 of 16 cells are there.' in text
        assert '| fog | weather | missing | ' in text

    @pytest.mark.parametrize(
        ('name', 'expected'),
        [
            ('<script>', '&lt;script&gt;'),
            ('a|b', 'a\\|b'),
            ('[x](y)', '\\[x\\](y)'),
            ('**b** `c`', '\\*\\*b\\*\\* \\`c\\`'),
            ('two\nlines', 'two lines'),
            ('_a_ but b_c', '\\_a\\_ but b_c'),
            ('https://x', 'https\\://x'),
        ],
    )
    def test_names(self, name, expected):
        assert escape_markdown(name) == expected


def test_no_figure_is_lost_by_rounding(tmp_path):
    results = write_case(tmp_path)
    rows = read_rows(tmp_path)
    mean = math.fsum(
        float(r['value'])
        for r in rows
        if r['model'] == 'dense' and r['quantity'] == 'mean P' and r['corruption']
    )
    assert mean / 5 == pytest.approx(results['models']['dense']['mPC'], abs=1e-15)
