# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import re

import pytest

from _utils.report_case import (
    CORRUPTIONS,
    SEVERITIES,
    read_page,
    section,
    write_case,
    write_results,
)
from mmdet_adasap.robustness.datasets.multi_view import Condition
from mmdet_adasap.robustness.report import write_report

BAD = '<script>alert(1)</script>'


@pytest.fixture
def case(tmp_path):
    return tmp_path, write_case(tmp_path)


def points(value, signed=False):
    """How a report writes a fraction."""
    return f'{100 * value:{"+" if signed else ""}.1f}'.replace('-', '\N{MINUS SIGN}')


class TestFigures:
    def test_headline_table(self, case):
        folder, results = case
        rows = section(read_page(write_report(folder)), 'models').all('table')[0].rows
        for row, name in zip(rows[2:], ('dense', 'slim'), strict=True):
            model = results['models'][name]
            assert row[0] == name
            for shown, key in zip(row[1:4], ('clean', 'mPC', 'rPC'), strict=True):
                low, high = model['ci95'][key]
                assert shown == f'{points(model[key])}{points(low)} to {points(high)}'
            assert row[4] == f'{model["mCE"]:.1f}'
            assert row[5:8] == ['1.00 M', '2.50', '12.5']
        for shown, key in zip(rows[3][8:], ('clean', 'mPC', 'rPC'), strict=True):
            difference = results['models']['slim']['difference'][key]
            ends = ' to '.join(points(end, True) for end in difference['ci95'])
            assert shown == points(difference['value'], True) + ends

    def test_heat_maps_have_each_cell_in_its_place(self, case):
        folder, results = case
        maps = section(read_page(write_report(folder)), 'cells').all('table')
        assert len(maps) == 2
        for table, name in zip(maps, ('dense', 'slim'), strict=True):
            assert table.all('caption')[0].text == name
            assert table.rows[0] == ['severity', *map(str, SEVERITIES), 'mean']
            rows = {row[0]: row[1:] for row in table.rows[1:] if len(row) > 1}
            assert list(rows) == list(CORRUPTIONS)
            for corruption, row in rows.items():
                cells = results['models'][name]['cells'][corruption]
                mean = results['models'][name]['per_corruption'][corruption]
                assert row == [*(points(cells[str(s)]) for s in SEVERITIES), points(mean)]

    def test_of_one_severity_there_is_no_mean_beside_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr('_utils.report_case.SEVERITIES', (3,))
        write_case(tmp_path)
        page = read_page(write_report(tmp_path))
        heads = [row for table in page.all('table', 'map') for row in table.rows[:1]]
        assert heads
        assert all(row == ['severity', '3'] for row in heads)
        assert '| corruption | group | 3 |' in (tmp_path / 'report.md').read_text()

    def test_difference_map_marks_what_is_sure(self, case):
        folder, results = case
        # Apart by 30 points in one cell, equal draw by draw in another.
        for corruption, shift in (('fog', 0.3), ('contrast', 0.0)):
            file = folder / 'cells' / f'{corruption}-3.json'
            cell = json.loads(file.read_text())
            dense, slim = (cell['models'][name] for name in ('dense', 'slim'))
            slim['value'] = dense['value'] + shift
            slim['resampled'] = [p + shift for p in dense['resampled']]
            results['models']['slim']['cells'][corruption]['3'] = slim['value']
            file.write_text(json.dumps(cell))
        write_results(folder, results)
        table = section(read_page(write_report(folder)), 'differences').all('table')[0]
        rows = {row.all('th')[0].text: row.all('td') for row in table.all('tr')[1:]}
        fog, contrast = rows['fog'][1], rows['contrast'][1]
        assert fog.text == '+30.0'
        assert {'sure', 'd10'} <= set(fog.attributes['class'].split())
        assert contrast.text == '0.0'
        assert contrast.attributes['class'] == 'd5'

    def test_curves_name_every_figure(self, case):
        folder, results = case
        titles = [
            t.text for t in section(read_page(write_report(folder)), 'severity').all('title')
        ]
        for name in ('dense', 'slim'):
            model = results['models'][name]
            shown = points(model['per_severity']['5'])
            assert any(
                t.startswith(f'{name}, mean over corruptions, severity 5: {shown} (')
                for t in titles
            )
            blur = points(model['cells']['motion_blur']['3'])
            assert f'{name}, blur, severity 3: {blur}' in titles

    def test_one_model_is_not_compared(self, tmp_path):
        write_case(tmp_path, names=['dense'])
        page = read_page(write_report(tmp_path))
        assert section(page, 'differences') is None
        assert section(page, 'cost') is None
        assert 'There is one model' in section(page, 'models').text

    def test_verdict(self, case):
        folder, results = case
        results['models']['slim']['difference'] = {
            'clean': {'value': -0.02, 'ci95': [-0.03, -0.01]},
            'mPC': {'value': 0.01, 'ci95': [-0.01, 0.03]},
            'rPC': {'value': 0.05, 'ci95': [0.04, 0.06]},
        }
        write_results(folder, results)
        text = ' '.join(section(read_page(write_report(folder)), 'models').text.split())
        expected = (
            'slim has higher rPC (+5.0; +4.0 to +6.0) and lower clean mAP (-2.0; -3.0 to -1.0) '
            'than dense. Its mPC (+1.0; -1.0 to +3.0) cannot be told apart from that of dense.'
        )
        assert expected.replace('-', '\N{MINUS SIGN}') in text

    def test_without_intervals_nothing_is_told_apart(self, tmp_path):
        write_case(tmp_path, intervals=False)
        text = ' '.join(read_page(write_report(tmp_path)).text.split())
        assert 'There are no confidence intervals' in text
        assert 'it is not known whether that is more than chance' in text
        assert ' has higher ' not in text
        assert ' to ' not in section(read_page(tmp_path / 'report.html'), 'models').rows[3][1]


class TestWhatIsMissing:
    def test_partial(self, tmp_path):
        write_case(tmp_path, missing=[Condition('fog', 3)], partial=True)
        page = read_page(write_report(tmp_path))
        top = page.all('aside', 'alarm')[0].text
        assert '15 of 16 cells are there. Missing: fog 3.' in top
        assert 'mPC, rPC and mCE are partial' in top
        gaps = section(page, 'cells').all('td', 'gap')
        assert [gap.attributes['title'] for gap in gaps] == [
            'dense, fog 3: missing',
            'slim, fog 3: missing',
        ]

    def test_unfinished(self, tmp_path):
        write_case(tmp_path, missing=[Condition('fog', 3), Condition('none', 0)])
        page = read_page(write_report(tmp_path))
        top = page.all('aside', 'alarm')[0].text
        assert '14 of 16 cells are there. Missing: clean images, fog 3.' in top
        assert 'There is no mPC, rPC or mCE while cells are missing.' in top

    def test_finished_and_whole_says_nothing(self, tmp_path):
        results = write_case(tmp_path)
        for model in results['models'].values():
            model['over']['complete'] = True
        write_results(tmp_path, results)
        assert read_page(write_report(tmp_path)).all('aside') == []

    def test_mean_over_some_corruptions(self, tmp_path):
        write_case(tmp_path, corruptions=['fog', 'contrast'])
        top = read_page(write_report(tmp_path)).all('aside', 'alarm')[0].text
        assert 'it is the mean over fog and contrast at severities 1, 3 and 5' in top

    def test_a_classifier_at_chance(self, tmp_path):
        """Named where its interval reaches down to what guessing gives, and no other."""
        results = write_case(tmp_path, classes=[str(i) for i in range(10)])
        results['protocol']['metric'] = 'accuracy/top1'
        results['models']['slim']['clean'] = 0.12
        results['models']['slim']['ci95']['clean'] = [0.09, 0.15]
        write_results(tmp_path, results)
        top = read_page(write_report(tmp_path)).all('aside', 'alarm')[0].text
        assert 'On clean images slim cannot be told from chance (10.0 % with 10 classes)' in top
        results['models']['slim']['ci95']['clean'] = [0.11, 0.13]
        write_results(tmp_path, results)
        assert 'chance' not in read_page(write_report(tmp_path)).all('aside', 'alarm')[0].text

    def test_unreadable_images(self, case):
        folder, results = case
        results['unreadable'] = [{'image': f'a/{BAD}.jpg', 'error': 'broken'}]
        write_results(folder, results)
        page = read_page(write_report(folder))
        top = page.all('aside', 'alarm')[0].text
        assert '1 image could not be read' in top
        assert f'a/{BAD}.jpg (broken)' in top
        assert page.all('script') == []

    @pytest.mark.parametrize('change', ['gone', 'other'])
    def test_cell_files(self, case, change):
        folder, _ = case
        file = folder / 'cells' / 'fog-3.json'
        cell = json.loads(file.read_text())
        file.unlink()
        if change == 'other':
            cell['models']['slim']['value'] += 0.01
            file.write_text(json.dumps(cell))
        page = read_page(write_report(folder))
        assert (
            'missing, or of another run than results.json (1): fog-3.json.'
            in page.all('aside')[0].text
        )


class TestSafety:
    @pytest.fixture
    def page(self, tmp_path):
        folder = tmp_path / 'a "b" <i>'
        names = [BAD, '" onload="alert(1)', "'><img src=x onerror=alert(1)>"]
        results = write_case(folder, names=names, classes=[BAD, '&lt;b&gt;'])
        for model in results['models'].values():
            model['config'] = model['checkpoint'] = BAD
        protocol = results['protocol']
        protocol['metric'] = protocol['device'] = protocol['dataset']['type'] = BAD
        protocol['versions'][BAD] = {BAD: BAD}
        protocol[BAD] = BAD
        write_results(folder, results)
        return read_page(write_report(folder))

    def test_nothing_runs(self, page):
        assert page.all('script') == []
        every = list(page._walk())
        assert {one.tag for one in every} >= {'table', 'svg', 'rect', 'image'}
        assert not [a for one in every for a in one.attributes if a.startswith('on')]
        assert not {'img', 'iframe', 'object', 'embed', 'i', 'b', 'form'} & {e.tag for e in every}

    def test_names_are_shown_as_they_are(self, page):
        assert page.all('caption')[0].text == BAD
        assert section(page, 'classes').rows[2][0] in (BAD, '&lt;b&gt;')

    def test_nothing_is_loaded(self, page):
        for one in page._walk():
            for name, value in one.attributes.items():
                if name in ('href', 'src', 'data', 'action', 'poster', 'srcset', 'xlink:href'):
                    assert value.startswith(('#', 'data:image/jpeg;base64,')), (one.tag, value)
        style = page.all('style')[0].text
        assert not re.search(r'url\(|@import|expression', style)
        policy = next(
            m for m in page.all('meta') if m.attributes.get('http-equiv') is not None
        ).attributes['content']
        assert "default-src 'none'" in policy

    def test_turned_and_half_characters(self, tmp_path):
        write_case(tmp_path, names=['dense', 'a\u202eb\x00\ud800c'])
        text = read_page(write_report(tmp_path)).text
        assert 'a\ufffdb\ufffd?c' in text
        assert '\u202e' not in text


class TestPage:
    def test_tables_have_headers(self, case):
        page = read_page(write_report(case[0]))
        for table in page.all('table'):
            assert all(th.attributes.get('scope') for th in table.all('th'))
            assert all(row.all('th') for row in table.all('tr'))

    def test_drawings_have_titles(self, case):
        page = read_page(write_report(case[0]))
        drawings = [svg for svg in page.all('svg') if svg.attributes.get('role') == 'img']
        assert len(drawings) >= 10
        assert all(svg.all('title')[0].text for svg in drawings)

    def test_same_again(self, case):
        first = write_report(case[0]).read_bytes()
        assert write_report(case[0]).read_bytes() == first

    def test_left_as_it_was_when_the_cells_are_wrong(self, case):
        folder, _ = case
        (folder / 'report.html').write_text('old')
        (folder / 'cells' / 'fog-3.json').write_text('{"models": ')
        with pytest.raises(ValueError, match=r'fog-3\.json is no whole JSON file'):
            write_report(folder)
        assert (folder / 'report.html').read_text() == 'old'
        assert not (folder / 'report.md').exists()
