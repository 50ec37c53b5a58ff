# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import shutil

import pytest

from _utils.report_case import read_page, section, write_case, write_results
from mmdet_adasap.errors import ProtocolMismatchError
from mmdet_adasap.robustness.datasets.multi_view import Condition
from mmdet_adasap.robustness.report import compare


@pytest.fixture
def folders(tmp_path):
    """Two runs, and the same figures as one run would have them."""
    write_case(tmp_path / 'a', names=['dense', 'slim'], seed=1)
    write_case(tmp_path / 'b', names=['dense', 'other'], seed=2)
    return tmp_path / 'a', tmp_path / 'b'


class TestCompare:
    def test_models_stand_side_by_side(self, folders, tmp_path):
        page = read_page(compare([folders[0] / 'results.json', folders[1]], tmp_path / 'out'))
        rows = section(page, 'models').all('table')[0].rows
        assert [row[0] for row in rows[2:]] == ['dense (a)', 'slim', 'dense (b)', 'other']
        assert {file.name for file in (tmp_path / 'out').iterdir()} == {
            'report.html',
            'report.md',
            'report.csv',
        }

    def test_differences_refer_to_the_first_reference(self, folders, tmp_path):
        first = write_case(folders[0], names=['dense', 'slim'], seed=1)['models']
        other = write_case(folders[1], names=['dense', 'other'], seed=2)['models']['other']
        page = read_page(compare(folders, tmp_path / 'out'))
        row = section(page, 'models').all('table')[0].rows[-1]
        difference = 100 * (other['mPC'] - first['dense']['mPC'])
        assert row[9].startswith(f'{difference:+.1f}'.replace('-', '\N{MINUS SIGN}'))
        assert ' to ' in row[9]
        errors = [
            sum(1 - p for p in model['cells']['fog'].values()) for model in (other, first['dense'])
        ]
        csv = (tmp_path / 'out' / 'report.csv').read_text().split('\n')
        line = next(line for line in csv if line.startswith('other,CE,fog,'))
        assert float(line.split(',')[8]) == pytest.approx(100 * errors[0] / errors[1], rel=1e-12)

    def test_a_run_against_itself_differs_by_nothing(self, folders, tmp_path):
        shutil.copytree(folders[0], tmp_path / 'copy')
        page = read_page(compare([folders[0], tmp_path / 'copy'], tmp_path / 'out'))
        rows = section(page, 'models').all('table')[0].rows[2:]
        assert [row[0] for row in rows] == [
            'dense (a)',
            'slim (a)',
            'dense (copy)',
            'slim (copy)',
        ]
        assert rows[2][8:] == ['0.00.0 to 0.0'] * 3
        assert rows[1][1:] == rows[3][1:]

    def test_folders_of_one_name(self, folders, tmp_path):
        shutil.copytree(folders[0], tmp_path / 'x' / 'a')
        page = read_page(compare([folders[0], tmp_path / 'x' / 'a'], tmp_path / 'out'))
        names = [row[0] for row in section(page, 'models').all('table')[0].rows[2:]]
        assert names == ['dense (a)', 'slim (a)', 'dense (a, 2)', 'slim (a, 2)']

    def test_mce_refers_to_a_model_of_the_report(self, folders, tmp_path):
        """By the name that it has there, where two runs call theirs the same."""
        compare(folders, tmp_path / 'both')
        rows = (tmp_path / 'both' / 'report.md').read_text().splitlines()
        assert '| reference | dense (a) |' in rows
        assert '| mCE refers to | dense (a) |' in rows

    @pytest.mark.parametrize('how', ['cells', 'bootstrap'])
    def test_without_shared_resamples_there_are_no_intervals(self, folders, tmp_path, how):
        if how == 'cells':
            shutil.rmtree(folders[1] / 'cells')
        else:
            results = write_case(folders[1], names=['dense', 'other'], seed=2)
            results['protocol']['bootstrap']['seed'] = 9
            write_results(folders[1], results)
        page = read_page(compare(folders, tmp_path / 'out'))
        rows = section(page, 'models').all('table')[0].rows
        assert ' to ' not in rows[-1][9]
        assert ' to ' in rows[-1][2]  # each model keeps its own
        assert 'interval' in page.all('aside')[0].text


class TestRefused:
    @pytest.mark.parametrize(
        ('path', 'value', 'key'),
        [
            (['metric'], 'coco/bbox_mAP', 'metric'),
            (['seed'], 4, 'seed'),
            (['mode'], 'exact', 'mode'),
            (['subset'], 20, 'subset'),
            (['dataset', 'sha256'], 'def', 'dataset.sha256'),
            (['versions', 'opencv'], '5.0.0', 'versions.opencv'),
        ],
    )
    def test_another_protocol(self, folders, tmp_path, path, value, key):
        results = write_case(folders[1], names=['dense', 'other'], seed=2)
        inner = results['protocol']
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        write_results(folders[1], results)
        with pytest.raises(
            ProtocolMismatchError, match=f'does not compare .*: {key} is "?{value}'
        ):
            compare(folders, tmp_path / 'out')
        assert not (tmp_path / 'out').exists()

    def test_other_corruptions(self, folders, tmp_path):
        write_case(folders[1], corruptions=['fog'])
        with pytest.raises(ProtocolMismatchError, match='corruptions is'):
            compare(folders, tmp_path / 'out')

    def test_other_classes(self, folders, tmp_path):
        write_case(folders[1], classes=['cat', 'cow'])
        with pytest.raises(ProtocolMismatchError, match='classes is'):
            compare(folders, tmp_path / 'out')

    def test_what_changes_no_figure_is_only_said(self, folders, tmp_path):
        results = write_case(folders[1], names=['dense', 'other'], seed=2)
        results['protocol']['versions']['torch'] = '2.5'
        results['protocol']['corruptions'].reverse()
        write_results(folders[1], results)
        page = read_page(compare(folders, tmp_path / 'out'))
        assert 'The runs differ in versions' in page.all('aside')[0].text

    def test_a_run_that_is_not_finished(self, folders, tmp_path):
        write_case(folders[1], missing=[Condition('fog', 3)])
        with pytest.raises(ValueError, match='is not finished'):
            compare(folders, tmp_path / 'out')

    def test_one_file(self, folders, tmp_path):
        with pytest.raises(ValueError, match='two or more'):
            compare(folders[:1], tmp_path / 'out')

    def test_the_folder_of_a_run(self, folders):
        with pytest.raises(ValueError, match='has the report of a run'):
            compare(folders, folders[1])
