# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The parts of tools/demo/detection.py; the demo itself trains for minutes."""

import argparse
import json
import sys
from pathlib import Path

import detection
import pytest
import torch
from detection import checkpoint

from demo_parts import steps
from demo_parts.jobs import Job, run_jobs
from demo_parts.steps import Plan, Step, Training, fingerprint
from demo_parts.tables import format_detection_table
from mmdet_adasap.apis import build_dense, prune_model


class TestStep:
    def test_is_finished_in_the_next_call(self, tmp_path):
        Step(tmp_path / 'a', 'key').add(3.0, finished=False)
        again = Step(tmp_path / 'a', 'key')
        assert not again.finished
        again.add(4.0, finished=True)
        last = Step(tmp_path / 'a', 'key')
        assert last.finished
        assert last.seconds == 7.0

    @pytest.mark.parametrize(('key', 'force'), [('other', False), ('key', True)])
    def test_is_redone(self, tmp_path, key, force):
        Step(tmp_path / 'a', 'key').add(3.0, finished=True)
        (tmp_path / 'a' / 'left').touch()
        again = Step(tmp_path / 'a', key, force)
        assert not again.finished
        assert again.seconds == 0
        assert not (tmp_path / 'a' / 'left').exists()

    def test_a_torn_note_is_redone(self, tmp_path):
        Step(tmp_path / 'a', 'key').add(3.0, finished=True)
        (tmp_path / 'a' / 'step.json').write_text('')
        assert not Step(tmp_path / 'a', 'key').finished

    def test_a_torn_checkpoint_is_passed_over(self, tmp_path):
        step = Step(tmp_path / 'a', 'key')
        assert checkpoint(step) is None
        for number in (5, 10):
            torch.save({'epoch': number}, step.folder / f'epoch_{number}.pth')
        assert checkpoint(step).name == 'epoch_10.pth'
        whole = (step.folder / 'epoch_10.pth').read_bytes()
        (step.folder / 'epoch_10.pth').write_bytes(whole[:200])
        assert checkpoint(step).name == 'epoch_5.pth'

    def test_fingerprint_follows_contents(self, tmp_path):
        file = tmp_path / 'config.py'
        file.write_text('a = 1')
        first = fingerprint(0, files=[file])
        assert fingerprint(0, files=[file]) == first
        assert fingerprint(1, files=[file]) != first
        file.write_text('a = 2')
        assert fingerprint(0, files=[file]) != first


def python(code: str, log: Path, name: str = 'job') -> Job:
    return Job(name, lambda: [sys.executable, '-c', code], log, log.parent)


class TestPlan:
    """What a demo plans, with a program that trains nothing."""

    @pytest.fixture
    def new_plan(self, tmp_path, monkeypatch):
        tool = tmp_path / 'train.py'
        torch.save({'epoch': 1}, tmp_path / 'whole.pth')  # so that the program imports no torch
        tool.write_text(
            'import shutil, sys\n'
            'folder = sys.argv[sys.argv.index("--work-dir") + 1]\n'
            'print(*[a for a in sys.argv if a.startswith("load_from=")])\n'
            f'shutil.copyfile({str(tmp_path / "whole.pth")!r}, folder + "/epoch_1.pth")\n'
        )
        monkeypatch.setattr(steps, 'find_tool', lambda name: str(tool))
        return lambda: Plan('train', (), 2, False)

    def add_trainings(self, plan, folder):
        (folder / 'config.py').touch()
        one = dict(config=folder / 'config.py', bases=[], seed=0)
        dense = plan.add_training(Training('dense', folder / 'dense', **one))
        return dense, plan.add_training(Training('slim', folder / 'slim', start=dense, **one))

    def test_a_training_starts_from_another_and_is_done_once(self, new_plan, tmp_path, capsys):
        first = new_plan()
        dense, slim = self.add_trainings(first, tmp_path)
        first.run()
        log = (slim.folder / 'train.log').read_text()
        assert log == f'load_from={dense.folder}/epoch_1.pth\n'
        assert 'done before' not in capsys.readouterr().out
        again = new_plan()
        self.add_trainings(again, tmp_path)
        assert capsys.readouterr().out.count('done before') == 2

    def test_a_training_waits_for_what_another_program_writes(self, new_plan, tmp_path, capsys):
        """And is trained again where that program has something else to go by."""
        (tmp_path / 'config.py').touch()
        given = tmp_path / 'given'

        def run() -> Step:
            plan = new_plan()
            table = plan.add_program(
                'table',
                tmp_path / 'table',
                lambda folder: ['-c', f'open({str(folder / "t")!r}, "w").write("ns")'],
                [given],
            )
            training = Training(
                *('slim', tmp_path / 'slim', tmp_path / 'config.py', []),
                seed=0,
                options=[f'load_from={table.folder / "t"}'],
                needs=[table],
            )
            slim = plan.add_training(training)
            (job,) = [job for step, job in plan._unfinished.items() if step is slim] or [None]
            assert job is None or [each.name for each in job.after] == ['table']
            plan.run()
            assert (table.folder / 't').read_text() == 'ns'
            return slim

        for text, done_before in (('one', 0), ('one', 2), ('another', 0)):
            given.write_text(text)
            slim = run()
            assert slim.finished
            assert capsys.readouterr().out.count('done before') == done_before

    @pytest.mark.parametrize('torn', [True, False])
    def test_a_checkpoint_that_is_torn_or_gone_is_made_again(
        self, new_plan, tmp_path, capsys, torn
    ):
        """Nothing is trained from random weights in its place."""
        first = new_plan()
        dense, _ = self.add_trainings(first, tmp_path)
        first.run()
        file = dense.folder / 'epoch_1.pth'
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2]) if torn else file.unlink()
        again = new_plan()
        self.add_trainings(again, tmp_path)
        printed = capsys.readouterr().out
        assert 'dense: its checkpoint is gone or torn, so it is trained again' in printed
        assert 'slim: done before' in printed
        again.run()
        assert checkpoint(dense) == file

    def test_what_builds_on_a_checkpoint_that_went_meanwhile_says_so(self, new_plan, tmp_path):
        first = new_plan()
        dense, _ = self.add_trainings(first, tmp_path)
        first._unfinished = {
            step: job for step, job in first._unfinished.items() if step is not dense
        }
        for job in first._unfinished.values():
            job.after = []
        with pytest.raises(FileNotFoundError, match='dense has no whole epoch'):
            first.run()


class TestJobs:
    def test_output_and_threads(self, tmp_path, capsys):
        job = python("import os; print(os.environ['OMP_NUM_THREADS'])", tmp_path / 'log')
        run_jobs([job], at_once=1)
        assert (tmp_path / 'log').read_text() == '1\n'
        assert job.succeeded
        assert str(tmp_path / 'log') in capsys.readouterr().out

    def test_failure_shows_the_last_lines_and_stops_the_others(self, tmp_path):
        bad = python("raise ValueError('no such layer')", tmp_path / 'bad', 'AdaSAP')
        slow = python('import time; time.sleep(60)', tmp_path / 'slow')
        with pytest.raises(SystemExit, match=r'(?s)no such layer.*AdaSAP failed.*bad'):
            run_jobs([bad, slow], at_once=2)
        assert slow._process.poll() is not None
        assert not slow.succeeded

    def test_job_waits_for_others_then_gets_command(self, tmp_path):
        """It starts from what they made; those that need not wait are not held up."""
        made = tmp_path / 'made'
        first = python(
            f"import time; time.sleep(1); open({str(made)!r}, 'w').write('weights')",
            tmp_path / 'first',
        )
        second = Job(
            'second',
            lambda: [sys.executable, '-c', f'print({made.read_text()!r})'],
            tmp_path / 'second',
            tmp_path,
            after=[first],
        )
        free = python(f'import os; print(os.path.exists({str(made)!r}))', tmp_path / 'free')
        ended = []
        run_jobs([first, second, free], at_once=2, on_end=ended.append)
        assert (tmp_path / 'second').read_text() == 'weights\n'
        assert (tmp_path / 'free').read_text() == 'False\n'
        assert ended == [free, first, second]

    def test_ended_jobs_are_noted_before_a_failure(self, tmp_path):
        good = python('', tmp_path / 'good')
        bad = python('import sys; sys.exit(3)', tmp_path / 'bad')
        bad.after = [good]
        slow = python('import time; time.sleep(60)', tmp_path / 'slow')
        never = python('', tmp_path / 'never')
        never.after = [slow]
        ended = {}

        def note(job):
            ended[job] = job.succeeded

        with pytest.raises(SystemExit, match='exit status 3'):
            run_jobs([good, bad, slow, never], at_once=2, on_end=note)
        assert ended == {good: True, bad: False, slow: False}

    def test_progress_reads_the_log_of_mmengine(self, tmp_path):
        job = python('', tmp_path / 'log', 'dense')
        job.log.write_text('no line yet')
        assert job.progress() == 'dense: starting'
        job.log.write_text(
            'train_cfg = dict(max_epochs=70)\n'
            '11/21 03:10:30 - mmengine - INFO - Epoch(train)  [9][13/13]  lr: 1e-2  eta: 0:15:47  '
            'time: 1.7\n11/21 03:10:50 - mmengine - INFO - Epoch(train) [10][13/13]  lr: 1e-2  '
            'eta: 0:14:30  time: 1.7\n'
        )
        assert job.progress() == 'dense: epoch 10/70, 14:30 left'
        job.log.write_text(
            'robustness: reading the test set\n  0%|          | 0/600 [00:00<?, ?img/s]'
        )
        assert job.progress() == 'dense: starting'
        job.log.write_text(
            '\r  0%|          | 0/600 [00:00<?, ?img/s]\r'
            ' 42%|████▏     | 250/600 [00:10<00:14, 25img/s]'
        )
        assert job.progress() == 'dense: 42 %, 00:14 left'


def test_table():
    model = {
        'params': 906855,
        'flops': 134567890,
        'latency_ms': 12.345,
        'train_seconds': 301.6,
        'mAP': 0.61849,
        'corrupted': {'fog': {3: 0.5}, 'contrast': {3: 0.25}},
        'mPC': 0.375,
        'rPC': 0.6063,
    }
    assert format_detection_table({'dense': model}, ['fog', 'contrast'], 3).splitlines() == [
        '|                  |   dense |',
        '|------------------|--------:|',
        '| parameters       | 906,855 |',
        '| GFLOPs           |  0.1346 |',
        '| latency, ms      |    12.3 |',
        '| training time, s |     302 |',
        '| mAP              |   0.618 |',
        '| mAP, fog 3       |   0.500 |',
        '| mAP, contrast 3  |   0.250 |',
        '| mPC              |   0.375 |',
        '| rPC              |   0.606 |',
    ]


def test_table_with_times_of_all_networks():
    model = {
        **{'params': 1, 'flops': 1, 'latency_ms': 1, 'train_seconds': 1, 'mAP': 0.5},
        **{'corrupted': {}, 'mPC': 0.4, 'rPC': 0.8},
    }
    timed = format_detection_table({'dense': {**model, 'network_time': 0.5987}}, [], 3)
    assert '| network in onnxruntime |  0.599 |' in timed.splitlines()
    assert 'onnxruntime' not in format_detection_table({'dense': model}, [], 3)
    some = {'dense': {**model, 'network_time': 1.0}, 'slim': model}
    assert 'onnxruntime' not in format_detection_table(some, [], 3)


def test_demo_without_onnxruntime(tmp_path, monkeypatch):
    """It goes on without the arm that needs it, and without the time."""
    arguments = argparse.Namespace(seed=0, out=tmp_path, jobs=1, force=False)
    monkeypatch.setattr(steps, 'find_tool', lambda name: 'train.py')
    monkeypatch.setattr(detection, 'find_spec', lambda name: None if name == 'onnx' else name)
    demo = detection.Demo(arguments)
    assert [*demo.arms] == ['dense', 'control', 'adasap']
    demo.add_table()
    demo.add_times()
    assert demo.table is demo.times is None
    monkeypatch.setattr(detection, 'find_spec', lambda name: name)
    assert [*detection.Demo(arguments).arms] == [*detection.ARMS]


@pytest.mark.long
def test_times_of_networks(run_tool, tmp_path):
    pytest.importorskip('onnxruntime')
    config = 'configs/demo/dense_yolox_tiny-voc.py'
    model = build_dense(config)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'dense.pth')
    structure = prune_model(model, target=dict(flops=0.3), round_to=16)
    slim = {'state_dict': model.state_dict(), 'meta': {'mmdet_adasap': structure}}
    torch.save(slim, tmp_path / 'slim.pth')
    code, out, err = run_tool(
        *('demo/time_networks.py', config),
        *(f'dense={tmp_path / "dense.pth"}', f'slim={tmp_path / "slim.pth"}'),
        *('--image-size', 128, '--out', tmp_path / 'times.json'),
    )
    assert not code, err
    times = json.loads((tmp_path / 'times.json').read_text())
    assert times['dense'] == 1.0
    assert 0.1 < times['slim'] < 0.8
    assert f'slim: {times["slim"]:.3f} of the dense network' in out
