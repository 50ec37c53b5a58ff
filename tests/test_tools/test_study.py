# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What tools/study.py makes of sets and arms, and of results; it trains for hours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_adasap.hooks.settings import AdaSAPSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [str(ROOT / 'tools' / name) for name in ('', 'demo', 'benchmarks')]


@pytest.fixture
def parts(monkeypatch):
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(folder)
    from study_parts import arms, results, sets

    return arms, sets, results


@pytest.fixture(params=['tiny_voc', 'bccd', 'cifar10'])
def adasap_config(request, parts):
    if request.param == 'cifar10':
        pytest.importorskip('mmpretrain')
    return parts[1].SETS[request.param].config('adasap')


class TestArms:
    def test_each_is_a_run_of_adasap(self, parts, adasap_config):
        for arm in parts[0].ARMS.values():
            hook = dict(parts[0].config_of(adasap_config, arm).default_hooks.adasap)
            del hook['type']
            AdaSAPSettings(**hook)

    def test_equal_time_has_as_many_events(self, parts, adasap_config):
        """Plain steps are half as long, so there are twice as many."""
        arms = parts[0]
        plain, long = (
            arms.config_of(adasap_config, arms.ARMS[name])
            for name in ('plain', 'plain, equal time')
        )
        for key in ('warmup', 'prune', 'interval'):
            assert long.default_hooks.adasap[key] == 2 * plain.default_hooks.adasap[key]
        assert long.train_cfg.max_epochs == 2 * plain.train_cfg.max_epochs
        last = [c.param_scheduler for c in (plain, long)]
        last = [s[-1] if isinstance(s, list) else s for s in last]
        assert last[1].T_max == last[1].end == 2 * last[0].end == long.train_cfg.max_epochs
        assert long.default_hooks.adasap.perturbation is None

    def test_nothing_else_differs(self, parts, adasap_config):
        wanted = adasap_config.to_dict()
        for arm in parts[0].ARMS.values():
            cfg = parts[0].config_of(adasap_config, arm).to_dict()
            for key in ('model', 'train_dataloader', 'test_dataloader', 'load_from'):
                assert cfg[key] == wanted[key]
            for key in ('target', 'importance', 'round_to', 'schedule'):
                assert (
                    cfg['default_hooks']['adasap'][key] == wanted['default_hooks']['adasap'][key]
                )


class TestSets:
    def test_cifar10_is_read_from_files(self, parts, tmp_path):
        for part, number in (('train', 700), ('test', 2)):
            for label in range(10):
                folder = tmp_path / part / f'class{label}'
                folder.mkdir(parents=True)
                for image in range(number):
                    (folder / f'{image:04}.jpg').touch()
        found = parts[1].SETS['cifar10'].prepare(tmp_path, tmp_path)
        lists = {
            split: Path(each['ann_file']).read_text().split('\n') for split, each in found.items()
        }
        assert {split: len(lines) - 1 for split, lines in lists.items()} == {
            'train': 5000,
            'val': 1000,
            'test': 20,
        }
        assert lists['val'][0] == 'class0/0500.jpg 0'
        assert not {*lists['train'][:-1]} & {*lists['val'][:-1]}

    @pytest.mark.parametrize('name', ['bccd', 'cifar10'])
    def test_a_folder_without_the_set(self, parts, tmp_path, name):
        with pytest.raises(SystemExit, match='--data-root'):
            parts[1].SETS[name].prepare(tmp_path, tmp_path)


def lines(**arms) -> list[dict]:
    return [
        dict(
            arm=arm.replace('_', ' '), seed=seed, clean=0.5, mPC=value, rPC=value / 0.5, seconds=9
        )
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]


class TestResults:
    def test_differences_are_of_pairs(self, parts):
        found = lines(AdaSAP=(0.32, 0.43)) + [
            line | dict(arm='plain, equal time') for line in lines(x=(0.30, 0.40))
        ]
        text = parts[2].format_tables(found, 3)
        assert '| AdaSAP | 2 | 0.500 ± 0.000 | 0.375 ± 0.078 | 0.750 ± 0.156 | 9 |' in text
        # Student's t of two pairs, 0.02 and 0.03 apart: 12.7 times 0.005.
        assert '| AdaSAP | 2 | +0.000 [+0.000, +0.000] | +0.025 [-0.039, +0.089] |' in text

    def test_what_is_there_is_read(self, parts, tmp_path):
        for seed in (2, 10):
            for arm in ('dense', 'AdaSAP'):
                test, training = (
                    tmp_path / f'seed{seed}' / f'{kind}{arm}' for kind in ('val_', '')
                )
                for folder in (test, training):
                    folder.mkdir(parents=True)
                models = {arm: dict(clean=0.5, mPC=0.25, rPC=0.5, ci95=0)}
                (test / 'results.json').write_text(json.dumps(dict(models=models)))
                (training / 'training.json').write_text(json.dumps(dict(seconds=7)))
        found = parts[2].read_results(tmp_path, 'val', ['plain', 'AdaSAP'], str)
        assert [(line['seed'], line['arm']) for line in found] == [
            (2, 'dense'),
            (2, 'AdaSAP'),
            (10, 'dense'),
            (10, 'AdaSAP'),
        ]
        assert found[1] == dict(arm='AdaSAP', seed=2, clean=0.5, mPC=0.25, rPC=0.5, seconds=7)
        parts[2].draw(found, tmp_path / 'plot.png', 'a set')
        assert (tmp_path / 'plot.png').stat().st_size > 1000


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--set', 'bccd'], '--set bccd needs --data-root'),
        (['--set', 'tiny_voc', '--seeds', '4-'], "'4-': write seeds as 0-4 or 0,2,5"),
        (['--set', 'tiny_voc', '--arms', 'SGD'], "invalid choice: 'SGD'"),
    ],
)
def test_options(arguments, words):
    command = [sys.executable, ROOT / 'tools' / 'study.py', *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert 'Traceback' not in done.stderr
