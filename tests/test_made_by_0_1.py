# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What version 0.1.0 wrote is read, gone on with and compared as it was by that version.

The files are in data/made_by_0_1, whose README.md says how they were made.
"""

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

from mmdet.apis import inference_detector
from mmengine.runner import Runner

from _utils.made_by_0_1_case import (
    RUNS,
    TESTED,
    WIDTH,
    raw_of,
    run_of,
    scores_of,
    summary_of,
    tensors_of,
    write_images,
)
from _utils.toy import ToyModel
from mmdet_adasap.apis import (
    build_dense,
    init_pruned_classifier,
    init_pruned_detector,
    load_pruned,
    prune_model,
)

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / 'data' / 'made_by_0_1'


def assert_close(found: list, expected: list[torch.Tensor]) -> None:
    """Equal but for rounding, which differs from one processor to another."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        one = torch.as_tensor(one).flatten()
        assert one.shape == other.flatten().shape
        assert (one - other.flatten()).abs().max() <= 1e-5 * other.abs().max()


@pytest.fixture(scope='module')
def expected() -> dict[str, list[torch.Tensor]]:
    return torch.load(DATA / 'outputs.pth', weights_only=True)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A copy of the files, which tools may write into; paths in them are relative to it."""
    shutil.copytree(DATA, tmp_path / 'made')
    write_images(tmp_path / 'made' / 'images')
    monkeypatch.chdir(tmp_path / 'made')
    return tmp_path / 'made'


@pytest.fixture
def tool(here, monkeypatch, capsys):
    """Runs a program of tools/ in the copy; gives its exit code and what it printed."""
    monkeypatch.syspath_prepend(ROOT / 'tools')

    def run(name: str, *arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        code = None
        try:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        except SystemExit as stopped:
            code = stopped.code
        return code, capsys.readouterr().out

    return run


class TestTraining:
    @pytest.fixture(autouse=True)
    def in_double(self):
        """In float64, in which processors agree."""
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)

    @pytest.mark.parametrize('phase', ['warmup', 'prune', 'finetune'])
    def test_goes_on_to_the_same_end(self, phase, tmp_path):
        file = DATA / f'{phase}.pth'
        checkpoint = torch.load(file, weights_only=False)
        assert checkpoint['meta']['mmdet_adasap']['phase'] == phase
        # Gradients of an interval that had begun.
        assert checkpoint['mmdet_adasap']['importance'].get('count') == dict(
            warmup=0, prune=2
        ).get(phase)
        cfg = run_of(tmp_path) | dict(resume=True, load_from=str(file))
        Runner(model=ToyModel(WIDTH), experiment_name=f'{tmp_path}', **cfg).train()
        end = torch.load(tmp_path / 'epoch_6.pth', weights_only=False)
        found, expected = summary_of(tensors_of(end)), json.loads((DATA / 'end.json').read_text())
        assert found.keys() == expected.keys()
        for part in ('state_dict/', 'ema_state_dict/', 'optimizer/'):
            assert any(name.startswith(f'/{part}') for name in expected)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=0, abs=1e-6), name
        # It would be said of settings that are called otherwise, too.
        (log,) = tmp_path.glob('*/*.log')
        assert 'will not equal' not in log.read_text()

    def test_other_settings_are_refused(self, tmp_path):
        cfg = run_of(tmp_path, interval=3)
        cfg |= dict(resume=True, load_from=str(DATA / 'prune.pth'))
        runner = Runner(model=ToyModel(WIDTH), experiment_name=f'{tmp_path}', **cfg)
        with pytest.raises(ValueError, match='started with interval=4 and goes on with interval'):
            runner.train()


class TestPrunedCheckpoints:
    def test_detector(self, expected):
        config, checkpoint = DATA / 'detector.py', DATA / 'detector.pth'
        model = init_pruned_detector(config, checkpoint)
        assert_close(raw_of(model), expected['detector'])
        assert model.dataset_meta['classes'][:2] == ('zero', 'one')
        sample = inference_detector(model, np.full((48, 64, 3), 100, np.uint8))
        assert len(sample.pred_instances) == 10

    def test_classifier(self, expected):
        config, checkpoint = DATA / 'classifier.py', DATA / 'slim.pth'
        assert_close(raw_of(init_pruned_classifier(config, checkpoint)), expected['classifier'])
        model = build_dense(config)
        dense = sum(p.numel() for p in model.parameters())
        structure = load_pruned(model, str(checkpoint))
        assert structure['dense']['params'] == dense
        assert 0.5 < structure['reached']['params'] <= 0.6
        assert_close(raw_of(model.eval()), expected['classifier'])
        again = prune_model(model, target=dict(params=0.4), round_to=1)
        assert again['dense']['params'] == dense
        assert sum(p.numel() for p in model.parameters()) == again['reached']['params'] * dense

    @pytest.mark.parametrize('name', TESTED)
    def test_unpruned_config_tests_it(self, here, name):
        found = scores_of(f'{name}.py', TESTED[name])
        assert found == pytest.approx(json.loads(Path('scores.json').read_text())[name])


def test_exported_folders(here, tool, expected):
    """Beside new ones in a process, whichever comes first, without the plugin and with it."""
    for config, checkpoint, out in (
        ('classifier.py', 'slim.pth', 'new_classifier'),
        ('detector.py', 'detector.pth', 'new_detector'),
    ):
        code, out = tool('export.py', config, checkpoint, '--out', out, '--rounds', 1)
        assert not code
    made = {'exported_classifier': 'mobilenet', 'exported_detector': 'detector'}
    made |= {'new_detector': 'detector', 'new_classifier': 'classifier'}
    groups = [('without', *made), ('without', *reversed(made)), ('before', *made)]
    groups.append(('behind', *made))
    done = subprocess.run(
        [
            sys.executable,
            ROOT / 'tests' / '_utils' / 'made_by_0_1_case.py',
            *map(','.join, groups),
        ],
        capture_output=True,
        text=True,
        env=os.environ
        | dict(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / 'tests')]), OMP_NUM_THREADS='1'),
    )
    assert not done.returncode, done.stderr[-3000:]
    for group, outputs in zip(groups, json.loads(done.stdout.splitlines()[-1]), strict=True):
        for folder, raw in zip(group[1:], outputs, strict=True):
            assert_close(raw, expected[made[folder]])


def options(kind: str, out: str, *more: object) -> list[object]:
    """Arguments of robustness.py for a folder of results; later ones replace earlier ones."""
    config, names, settings = RUNS[kind]
    found = [config, *(f'{name}={name}.pth' for name in names), '--out', out, '--workers', 0]
    for key, value in settings.items():
        found += [f'--{key}', *(value if isinstance(value, list) else [value])]
    return [*found, *more]


def files_of(folder: str) -> dict[str, bytes]:
    """Cells with the seconds that they took, and what models saw."""
    kept = [*Path(folder, 'cells').glob('*.json'), *Path(folder, 'examples').glob('*')]
    return {file.name: file.read_bytes() for file in kept}


def figures(folder: str) -> dict:
    """All of results.json that does not differ from run to run."""
    results = json.loads(Path(folder, 'results.json').read_text())
    results.pop('times')
    for model in results['models'].values():
        for key in ('latency_ms', 'latency_low_ms', 'latency_high_ms'):
            model['cost'].pop(key, None)  # 0.1 did not have quartiles
    return results


def rows(folder: str, model: str, *columns: str) -> list[tuple]:
    """Lines of report.csv about a model, but those of times."""
    with Path(folder, 'report.csv').open() as file:
        found = [row for row in csv.DictReader(file) if row['model'] == model]
    return [tuple(row[c] for c in columns) for row in found if row['unit'] != 'ms']


@pytest.mark.parametrize('kind', RUNS)
class TestResults:
    """A folder that another version of this package wrote is refused: not after a release."""

    def end(self, code: object) -> None:
        """See that a run ended well, where the versions of other packages are the same."""
        if code and ': versions.' in str(code) and 'versions.mmdet_adasap' not in str(code):
            pytest.skip(f'the files were made with other versions: {code}')
        assert not code

    def test_unfinished_ones_are_gone_on_with(self, kind, tool):
        out = f'{kind}_stopped'
        before = files_of(out)
        assert {'clean.json', 'fog-2.json'} <= before.keys()
        assert 'motion_blur-2.json' not in before
        assert not figures(out)['finished']
        code, _ = tool('robustness.py', *options(kind, out))
        self.end(code)
        after, whole = files_of(out), files_of(kind)
        assert {name: after[name] for name in before} == before
        assert after.keys() == whole.keys()
        for name in after:
            if name.endswith('.jpg'):
                assert after[name] == whole[name]
            elif not name.startswith('_'):
                cells = [json.loads(files[name]) for files in (after, whole)]
                assert cells[0].pop('seconds').keys() == cells[1].pop('seconds').keys()
                assert cells[0] == cells[1]
        assert figures(out) == figures(kind)
        columns = ('quantity', 'value', 'low', 'high', 'difference', 'difference_low')
        for name in RUNS[kind][1]:
            assert rows(out, name, *columns) == rows(kind, name, *columns)

    def test_finished_ones_stay(self, kind, tool):
        before, results = files_of(kind), Path(kind, 'results.json').read_bytes()
        report = Path(kind, 'report.csv').read_bytes()
        Path(kind, 'report.csv').unlink()
        code, _ = tool('robustness.py', *options(kind, kind))
        self.end(code)
        assert files_of(kind) == before
        assert Path(kind, 'results.json').read_bytes() == results
        assert Path(kind, 'report.csv').read_bytes() == report
        code, _ = tool('robustness.py', *options(kind, kind, '--severities', 3))
        assert code.startswith(f'robustness: {kind} holds results of another protocol: severities')

    def test_compare(self, kind, tool):
        """With themselves, so that the figures are the same and nothing differs."""
        shutil.copytree(kind, 'again')
        code, _ = tool(
            *('robustness.py', '--compare', f'{kind}/results.json', 'again/results.json'),
            *('--out', 'both'),
        )
        assert not code
        columns = ('quantity', 'corruption', 'class', 'value', 'low', 'high')
        names = RUNS[kind][1]
        for folder in (kind, 'again'):
            for name in names:
                found = rows('both', f'{name} ({folder})', *columns)
                assert found == rows(kind, name, *columns)
                assert len(found) > 10
        columns = ('quantity', 'difference', 'difference_low', 'difference_high')
        one, other = (
            rows('both', f'{names[1]} ({folder})', *columns) for folder in (kind, 'again')
        )
        assert one == other
        assert one == rows(kind, names[1], *columns)
        assert sum(bool(row[1]) for row in one) >= 3
