# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The parts of tools/demo/classification.py, and as a slow test all of it at a small size."""

import argparse
import json
from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip('mmpretrain')


import classification as demo_classification

from demo_parts.pictures import COLOURS, draw_accuracies
from demo_parts.tables import format_summary, model_names, summarize


def found(shift: float) -> dict:
    """What tools/robustness.py might have found of one seed."""
    models = {}
    for i, name in enumerate(model_names()):
        clean, corrupted = 0.8 - 0.02 * i + shift, 0.5 - 0.01 * i
        models[name] = {
            'cost': {'params': 700000 - 1000 * i},
            'clean': clean,
            'mPC': corrupted,
            'rPC': corrupted / clean,
        }
    return {'models': models}


def results(*shifts: float) -> dict:
    seconds = dict.fromkeys(range(len(shifts)), dict.fromkeys(model_names(), 10.0))
    summary = summarize({seed: found(shift) for seed, shift in enumerate(shifts)}, seconds)
    return {'corruptions': ['fog', 'frost'], 'severities': [3], **summary}


class TestSummary:
    def test_mean_and_deviation_of_the_sample(self):
        dense = results(0.0, 0.01, 0.02)['models']['dense']
        assert dense['clean']['mean'] == pytest.approx(0.81)
        assert dense['clean']['std'] == pytest.approx(0.01)
        assert dense['clean']['values'] == pytest.approx([0.8, 0.81, 0.82])
        assert dense['corrupted']['std'] == 0

    def test_differences_are_paired_by_seed(self):
        """So that what a seed does to all arms is not in them."""
        difference = results(0.0, 0.1)['differences']['AdaSAP-0.5 - SGD-0.5']['clean']
        assert difference['values'] == pytest.approx([-0.04, -0.04])
        assert difference['std'] == pytest.approx(0, abs=1e-12)

    def test_each_size_is_compared_with_both_arms(self):
        assert list(results(0.0)['differences']) == [
            'AdaSAP-0.5 - SGD-0.5',
            'AdaSAP-0.5 - SAM-0.5',
            'AdaSAP-0.25 - SGD-0.25',
            'AdaSAP-0.25 - SAM-0.25',
        ]

    def test_may_go_through_json(self):
        """results.json has what the table is made of."""
        made = results(0.0, 0.01)
        assert json.loads(json.dumps(made)) == made


class TestTable:
    def test_is_in_percent(self):
        lines = format_summary(results(0.0, 0.01, 0.02)).splitlines()
        assert lines[0] == 'Mean ± standard deviation, seeds 0, 1, 2; 2 corruptions, severity 3'
        assert lines[2:5] == [
            '|             | parameters | clean top-1, % | mean corrupted top-1, % |     R_C, % |',
            '|-------------|-----------:|---------------:|------------------------:|-----------:|',
            '| dense       |    700,000 |     81.0 ± 1.0 |              50.0 ± 0.0 | 61.7 ± 0.8 |',
        ]
        (line,) = [line for line in lines if line.startswith('| AdaSAP-0.25 - SAM-0.25')]
        assert '| -2.0 ± 0.0 (-2.0, -2.0, -2.0) | -1.0 ± 0.0 (-1.0, -1.0, -1.0) |' in line

    def test_one_seed_has_no_spread(self):
        text = format_summary(results(0.0))
        assert '±' not in text
        assert text.startswith('Seed 0;')
        assert len([line for line in text.splitlines() if line.startswith('|')]) == 2 + 7 + 2 + 4

    def test_a_model_that_is_never_right_has_no_share_to_keep(self):
        one = found(0.0)
        one['models']['SAM-0.25'] |= {'clean': 0.0, 'rPC': None}
        summary = summarize({0: one}, {0: dict.fromkeys(model_names(), 1.0)})
        text = format_summary({'corruptions': ['fog'], 'severities': [3], **summary})
        for row in ('| SAM-0.25 ', '| AdaSAP-0.25 - SAM-0.25'):
            (line,) = [line for line in text.splitlines() if line.startswith(row)]
            assert line.endswith(' - |')


class TestPicture:
    @pytest.mark.parametrize('shifts', [(0.0,), (0.0, 0.05, -0.03)])
    def test_every_arm_is_in_it(self, shifts):
        image = draw_accuracies(results(*shifts))
        colours = {'#{:02x}{:02x}{:02x}'.format(*c) for _, c in image.getcolors(1 << 20)}
        assert set(COLOURS.values()) <= colours


ARMS = list(demo_classification.PREFIXES)


@pytest.mark.parametrize('arm', ARMS)
def test_all_files_of_a_config_are_in_its_key(arm):
    """A training is redone if one of them changes."""
    config = demo_classification.config(arm)
    seen, left = set(), [config]
    while left:
        file = left.pop()
        bases, _ = Config._get_base_files(str(file)), seen.add(file)
        left += [(file.parent / base).resolve() for base in bases]
    assert seen - {config} == set(demo_classification.bases(arm))


def test_configs_read_the_set_that_is_made():
    cfg = Config.fromfile(demo_classification.config('dense'))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert demo_classification.ROOT / loader.dataset.data_root == demo_classification.DATA


def small_configs(folder: Path, data: Path) -> None:
    """The demo's own configs with three short epochs, on other images."""
    for arm in ARMS:
        config = demo_classification.config(arm)
        settings = {
            'train_cfg': dict(max_epochs=3, val_interval=3),
            **{
                f'{split}_dataloader': dict(batch_size=10, dataset=dict(data_root=str(data)))
                for split in ('train', 'val', 'test')
            },
        }
        hooks = dict(checkpoint=dict(interval=1))
        if arm != 'dense':
            hooks['adasap'] = dict(by_epoch=True, warmup=1, prune=1, interval=2)
        lines = [f'{key} = {value!r}' for key, value in settings.items()]
        text = [f'_base_ = {str(config)!r}', *lines, f'default_hooks = {hooks!r}']
        (folder / config.name).write_text('\n'.join(text))


@pytest.mark.slow
def test_whole_demo(tmp_path, monkeypatch, capsys):
    """All steps of one seed; a second call has nothing left to do and says the same."""
    configs, data = tmp_path / 'configs', tmp_path / 'data'
    configs.mkdir()
    small_configs(configs, data)
    monkeypatch.chdir(demo_classification.ROOT)
    monkeypatch.setattr(demo_classification, 'CONFIGS', configs)
    monkeypatch.setattr(demo_classification, 'DATA', data)
    small = {'seed': 0, 'train': 4, 'val': 2, 'test': 2, 'size': 32}
    monkeypatch.setattr(demo_classification, 'SET', small)
    args = argparse.Namespace(out=tmp_path / 'out', seeds=[0], jobs=2, force=False)

    demo_classification.Demo(args).run()
    first = capsys.readouterr().out
    made = json.loads((tmp_path / 'out' / 'results.json').read_text())
    dense = made['models']['dense']['params']['values'][0]
    for name, model in made['models'].items():
        share = 1 if name == 'dense' else float(name.partition('-')[2])
        assert all(0.9 * share < params / dense <= share for params in model['params']['values'])
        for figure in ('clean', 'corrupted'):
            assert all(0 <= value <= 1 for value in model[figure]['values'])
    assert len(made['corruptions']) == 15
    assert (tmp_path / 'out' / 'demo_classification.png').exists()

    demo_classification.Demo(args).run()
    second = capsys.readouterr().out
    assert second.count('done before') == 7 + 1
    assert second[second.index('Seed 0;') :] == first[first.index('Seed 0;') :]
