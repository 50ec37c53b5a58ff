# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""tools/robustness.py as a user calls it."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from _utils.robustness_case import without_times, write_config

pytest.importorskip('mmdet')

from builtin_sets.tiny_voc import build_tiny_voc

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def case(tmp_path_factory) -> Path:
    from _utils.seeing_detector import SeeingDetector

    folder = tmp_path_factory.mktemp('tool')
    build_tiny_voc(folder / 'voc', seed=1, train=2, val=2, test=10, size=96)
    write_config(folder / 'config.py', folder / 'voc')
    for name, blur in (('sharp', 1.0), ('dull', 3.0)):
        torch.save(dict(state_dict=SeeingDetector(blur).state_dict()), folder / f'{name}.pth')
    return folder


@pytest.fixture
def robustness(run_tool, case):
    """Runs the tool on the case's config; gives the last line, what was printed, and progress."""

    def run(*arguments: object) -> tuple[object, str, str]:
        return run_tool('robustness.py', case / 'config.py', *arguments, '--workers', 0)

    return run


def test_table_and_names(robustness, case, tmp_path):
    other = f'other={case}/config.py:{case}/dull.pth'
    code, out, err = robustness(
        *(case / 'sharp.pth', f'slim={case}/dull.pth', other),
        *('--out', tmp_path / 'out', '--severities', 2, '--corruptions', 'fog', 'contrast'),
        *('--reference', 'slim'),
    )
    assert not code, err
    results = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert list(results['models']) == [f'{case.name}/sharp', 'slim', 'other']
    assert results['models']['other']['cells'] == results['models']['slim']['cells']
    assert results['reference'] == 'slim'
    assert results['models']['other']['mCE'] == 100
    lines = out.splitlines()
    assert lines[2].split()[0] == 'slim'
    assert f'{results["models"]["slim"]["clean"]:.4f} [' in lines[2]
    assert '2 corruptions, severities 2; 10 of 10 images' in out
    assert 'over these alone' in out
    assert lines[-2:] == [str(tmp_path / 'out' / name) for name in ('results.json', 'report.html')]
    assert '30/30' in err
    assert err.splitlines()[0].startswith('robustness: device c')
    assert (tmp_path / 'out' / 'report.html').read_text().count('slim')


def test_compare(run_tool, robustness, case, tmp_path):
    for name in ('sharp', 'dull'):
        command = [f'{name}={case}/{name}.pth', '--out', tmp_path / name, '--severities', 3]
        code, *_ = robustness(*command, '--corruptions', 'fog')
        assert not code
    files = [tmp_path / name / 'results.json' for name in ('sharp', 'dull')]
    code, out, _ = run_tool('robustness.py', '--compare', *files, '--out', tmp_path / 'both')
    assert not code
    assert out.splitlines()[-1] == str(tmp_path / 'both' / 'report.html')
    with (tmp_path / 'both' / 'report.csv').open() as file:
        clean = [row for row in csv.DictReader(file) if row['corruption'] == 'none']
    rows = {row['model']: row for row in clean if row['quantity'] == 'P' and not row['class']}
    for name, file in zip(('sharp', 'dull'), files, strict=True):
        model = json.loads(file.read_text())['models'][name]
        assert float(rows[name]['value']) == model['clean']
    for arguments, message in (
        (['--compare', files[0]], 'robustness: '),
        ([case / 'config.py'], 'CONFIG and one CKPT or more are needed, or --compare'),
        ([case / 'config.py', '--compare', *files], '--compare tests nothing: leave out'),
    ):
        code, _, err = run_tool('robustness.py', *arguments, '--out', tmp_path / 'none')
        assert message in (code if isinstance(code, str) else err.splitlines()[-1])


@pytest.mark.parametrize(
    ('arguments', 'last'),
    [
        (
            ['--corruptions', 'fogg'],
            "robustness: corruption='fogg' is unknown; did you mean 'fog'",
        ),
        (['--severities', '0'], "argument --severities: '0' must be from 1 (light) to 5 (heavy)"),
        (['--severities', '6'], "argument --severities: '6' must be from 1 (light) to 5 (heavy)"),
        (['--subset', '0'], "argument --subset: '0' must be an integer of at least 1"),
        (['--resamples', '1'], "argument --resamples: '1' must be an integer of at least 2"),
        (['--reference', 'x'], 'robustness: reference=x is none of the models'),
        (['--launcher', 'pytorch'], 'robustness: --launcher pytorch needs'),
        (['--cfg-options', 'model.type=No'], 'robustness: '),
        (['--device', 'gpu'], 'robustness: --device gpu: there is none of that name'),
        (
            ['--cfg-options', 'test_dataloader.dataset.data_root=/no'],
            "robustness: data_root='/no' is not a folder",
        ),
        (['--cfg-options', 'model.fail=True'], 'robustness: model dull fails on clean images'),
        (['--cfg-options', 'test_evaluator='], 'test_evaluator is missing'),
    ],
)
def test_errors_are_one_line(robustness, case, tmp_path, arguments, last, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    code, _, err = robustness(f'dull={case}/dull.pth', '--out', tmp_path / 'out', *arguments)
    message = code if isinstance(code, str) else err.splitlines()[-1]
    assert last in message
    assert '\n' not in message
    assert 'Traceback' not in err


@pytest.mark.parametrize(
    ('checkpoint', 'last'),
    [
        ('no_such.pth', 'no_such.pth is no file; name the checkpoint to test'),
        ('README.md', 'README.md is damaged or holds more than data'),
        ('no_such.py:README.md', 'no_such.py'),
    ],
)
def test_wrong_checkpoints(robustness, tmp_path, checkpoint, last):
    code, *_ = robustness(checkpoint, '--out', tmp_path / 'out')
    assert last in code
    assert '\n' not in code


def test_folder_of_other_settings(robustness, case, tmp_path):
    command = [f'dull={case}/dull.pth', '--out', tmp_path / 'out', '--corruptions', 'fog']
    code, *_ = robustness(*command, '--severities', 1)
    assert not code
    code, *_ = robustness(*command, '--severities', 2)
    assert code.startswith(f'robustness: {tmp_path}/out holds results of another protocol: ')
    assert 'severities is [1] there and [2] here' in code


def test_report_in_spite_of_an_unreadable_image(robustness, case, tmp_path):
    build_tiny_voc(tmp_path / 'voc', seed=1, train=2, val=2, test=3, size=96)
    image = next((tmp_path / 'voc/VOCdevkit/VOC2007').glob('JPEGImages/3*.jpg'))
    image.write_bytes(image.read_bytes()[:-100])
    code, out, _ = robustness(
        *(f'dull={case}/dull.pth', '--out', tmp_path / 'out', '--corruptions', 'fog'),
        *('--cfg-options', f'test_dataloader.dataset.data_root={tmp_path}/voc/VOCdevkit/'),
    )
    assert code.startswith('robustness: 1 of 3 images could not be read')
    assert out.splitlines()[-1] == str(tmp_path / 'out' / 'report.html')
    assert image.name in (tmp_path / 'out' / 'report.html').read_text()


def start(case: Path, out: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    command = [sys.executable, 'tools/robustness.py', case / 'config.py']
    command += [f'sharp={case}/sharp.pth', f'dull={case}/dull.pth', '--out', out, '--workers', '1']
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_killed_at_random_moments(case, tmp_path):
    whole = start(case, tmp_path / 'whole')
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    out, moments = tmp_path / 'out', random.Random(time.time_ns())
    for kill in range(3):
        process = start(case, out)
        aim = moments.randint(1 + 6 * kill, 6 * (kill + 1))
        while len(list((out / 'cells').glob('[!_.]*.json'))) < aim and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    last = start(case, out)
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert without_times(out) == without_times(tmp_path / 'whole')
    assert not list(out.rglob('*.mmdet_adasap-partial'))


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_interrupt(case, tmp_path, signum):
    process = start(case, tmp_path / 'out')
    while not list((tmp_path / 'out').glob('cells/clean.json')) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert errors.splitlines()[-1] == 'robustness: interrupted; the same command goes on from here'
    assert process.returncode == 1
