# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Runs of AdaSAPHook with a target of latency: what they cut, time, log and resume."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EarlyStoppingHook

from _utils.adasap_runs import assert_same_weights, build, kill_after, train
from _utils.latency_runs import Clock, saving, toy_milliseconds, toy_table
from _utils.toy import ToyModel, settings
from mmdet_adasap.apis import load_pruned
from mmdet_adasap.errors import (
    LatencyTableError,
    OnnxMismatchError,
    StructureError,
    UnreachableTargetError,
)
from mmdet_adasap.hooks import latency_target
from mmdet_adasap.hooks.settings import AdaSAPSettings
from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.pruning.latency_check import SLOWER
from mmdet_adasap.pruning.structure import META_KEY

DENSE_MS = toy_milliseconds(ToyModel())


@pytest.fixture(scope='module')
def table(tmp_path_factory) -> str:
    return str(toy_table(tmp_path_factory.mktemp('table') / 'table.json'))


@pytest.fixture
def clock(monkeypatch):
    """Let this machine be that of the table; it takes another share than the formula says."""

    def set_clock(distort) -> Clock:
        found = Clock(distort)
        monkeypatch.setattr(latency_target, 'time_share_on', found)
        return found

    return set_clock


def run_settings(folder, table, latency=0.6, hook=None, **kwargs) -> dict:
    target = dict(latency=latency, table=table)
    return settings(folder, dict(target=target) | (hook or {}), log_level='INFO', **kwargs)


def log_of(folder: Path) -> str:
    return ''.join(file.read_text() for file in sorted(folder.rglob('*.log')))


def warnings_in(folder: Path) -> list[str]:
    return [x for x in log_of(folder).splitlines() if 'WARNING - AdaSAP: ' in x]


def structure_of(file: Path) -> dict:
    return torch.load(file, weights_only=False)['meta'][META_KEY]


def rows_of(folder: Path) -> list[dict]:
    (file,) = folder.rglob('scalars.json')
    rows = map(json.loads, file.read_text().splitlines())
    return [row for row in rows if 'phase' in row]


class TestPrediction:
    @pytest.fixture(scope='class')
    def run(self, tmp_path_factory, table):
        folder = tmp_path_factory.mktemp('run')
        runner = train(run_settings(folder, table))
        return folder, runner.model

    def test_the_network_is_within_the_limit(self, run):
        _, model = run
        assert 0.57 * DENSE_MS < toy_milliseconds(model) <= 0.6 * DENSE_MS

    def test_what_the_structure_says(self, run, table):
        folder, model = run
        structure = structure_of(folder / 'epoch_6.pth')
        found = structure['latency']
        assert found.pop('predicted_ms') == pytest.approx(toy_milliseconds(model), rel=1e-5)
        assert found.pop('dense_ms') == pytest.approx(DENSE_MS, rel=1e-5)
        digest = LatencyTable.read(table).digest
        device = 'torch 0 on a formula, 1 thread, float32'
        assert found == {'table': digest, 'device': device, 'measured_ms': None}
        assert structure['target'] == {'latency': 0.6, 'table': digest}

    def test_the_limit_goes_down_event_by_event(self, run):
        for row in rows_of(run[0]):
            event = max(0, min(4, (row['iter'] - 6) // 3))
            assert row['latency_target'] == pytest.approx(0.6 ** (event / 4))
            assert row['latency_target'] - 0.04 < row['latency_left'] <= row['latency_target']

    def test_a_table_of_another_machine_is_said(self, run):
        """The one that the formula makes is of no machine."""
        folder, model = run
        (line,) = (x for x in warnings_in(folder) if 'predicted and not measured' in x)
        assert 'of torch 0 on a formula, 1 thread, float32, and this machine is another' in line
        (line,) = (x for x in log_of(folder).splitlines() if 'AdaSAP: latency' in x)
        predicted = f'{toy_milliseconds(model):.3g} ms by the table, of {DENSE_MS:.3g} ms dense'
        assert f'latency {predicted} (torch 0 on' in line

    def test_milliseconds_of_layers_alone_are_said_to_be(self, run, tmp_path):
        """And those of a table that has timed the network, too, are not."""
        words = 'has not timed this network as a whole'
        layers = toy_table(tmp_path / 'layers.json', networks=False)
        train(run_settings(tmp_path / 'layers', str(layers)))
        assert words in log_of(tmp_path / 'layers')
        whole = toy_table(tmp_path / 'whole.json', networks=(0.3, 0.12))
        train(run_settings(tmp_path / 'run', str(whole)))
        assert words not in log_of(tmp_path / 'run')
        found = structure_of(tmp_path / 'run' / 'epoch_6.pth')['latency']
        assert found['dense_ms'] == pytest.approx(0.3, rel=1e-5)
        assert 0.15 < found['predicted_ms'] <= 0.18

    def test_the_table_of_the_cut_is_in_milliseconds(self, run):
        text = f'latency: {DENSE_MS:.3g} ms -> {toy_milliseconds(run[1]):.3g} ms (0.5'
        assert text in log_of(run[0])

    def test_the_checkpoint_loads_into_the_dense_model(self, run):
        folder, model = run
        again = ToyModel()
        load_pruned(again, str(folder / 'epoch_6.pth'))
        assert_same_weights(again, model, atol=0)

    def test_it_is_not_pruned_again_for_a_latency(self, run, table, tmp_path):
        start = str(run[0] / 'epoch_6.pth')
        with pytest.raises(ValueError, match=r'^load_from: .*already pruned to latency 0\.5'):
            train(run_settings(tmp_path, table, load_from=start))
        for latency in (0.5, '0.07ms'):
            with pytest.raises(ValueError, match=r'this one was cut before; limit flops') as error:
                train(run_settings(tmp_path, table, latency, load_from=start))
            assert '\n' not in str(error.value)


def test_milliseconds(tmp_path, table):
    runner = train(run_settings(tmp_path, table, '0.1 ms'))
    assert 0.095 < toy_milliseconds(runner.model) <= 0.1
    assert structure_of(tmp_path / 'epoch_6.pth')['target']['latency'] == '0.1ms'


def test_of_several_limits_all_hold(tmp_path, table):
    target = dict(params=0.5, latency=0.7, flops=0.6, table=table)
    train(settings(tmp_path, dict(target=target)))
    reached = structure_of(tmp_path / 'epoch_6.pth')['reached']
    assert all(reached[r] <= target[r] for r in ('params', 'flops', 'latency'))
    row = rows_of(tmp_path)[-1]
    assert {f'{r}_{what}' for r in reached for what in ('target', 'left')} <= row.keys()


def test_round_to_is_the_step_of_the_device_if_that_is_larger(tmp_path):
    for step, round_to in ((1, 8), (4, 8), (16, 16), (32, 32)):
        table = str(toy_table(tmp_path / 'table.json', step=step))
        given = dict(warmup=1, prune=2, target=dict(latency=0.6, table=table))
        assert AdaSAPSettings(**given).round_to == round_to
        assert AdaSAPSettings(**given, round_to=4).round_to == 4
    assert AdaSAPSettings(warmup=1, prune=2, target=dict(params=0.6)).round_to == 8


class TestClock:
    @pytest.mark.parametrize('part', [0.75, 1.2])
    def test_the_limit_is_corrected_by_it(self, tmp_path, table, clock, part):
        """At the first event, before channels are gone, and at the last, for what is cut."""
        times = clock(saving(part))
        runner = train(run_settings(tmp_path, table))
        share = toy_milliseconds(runner.model) / DENSE_MS
        measured = saving(part)(share)
        assert 0.57 < measured <= 0.6 * (1 + SLOWER)
        structure = structure_of(tmp_path / 'epoch_6.pth')
        found = structure['latency']
        assert structure['reached']['latency'] == pytest.approx(measured, abs=0.02)
        assert found['measured_ms'] == pytest.approx(measured * DENSE_MS, rel=1e-4)
        assert found['predicted_ms'] == pytest.approx(share * DENSE_MS, rel=1e-4)
        lines = [x for x in log_of(tmp_path).splitlines() if 'AdaSAP: ' in x]
        assert sum('limits are corrected by that' in x for x in lines) == 1
        measured = f'{found["measured_ms"]:.3g} ms measured, of {DENSE_MS:.3g} ms dense'
        assert sum(measured in x for x in lines) == 1
        # One correction at the first event; the last one has but to confirm it.
        assert 2 < len(times.shares) <= 5
        correction = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['mmdet_adasap']
        assert correction['correction'] == pytest.approx(1 / part, rel=0.05)
        # Events between the two hold the corrected limit.
        rows = [row for row in rows_of(tmp_path) if 9 <= row['iter'] < 18]
        assert all(row['latency_left'] <= row['latency_target'] + 1e-3 for row in rows)
        assert rows[0]['latency_left'] > 0.75  # the first one takes no more than its share

    @pytest.mark.parametrize(
        'error', [OnnxMismatchError('Sort cannot be written'), RuntimeError('out of\nmemory')]
    )
    def test_a_backend_that_fails_does_not_end_the_run(self, tmp_path, table, clock, error):
        def fail(share):
            raise error

        clock(fail)
        runner = train(run_settings(tmp_path, table))
        assert 0.57 * DENSE_MS < toy_milliseconds(runner.model) <= 0.6 * DENSE_MS
        assert structure_of(tmp_path / 'epoch_6.pth')['latency']['measured_ms'] is None
        said = [x for x in warnings_in(tmp_path) if 'cannot be timed now' in x]
        assert f'({type(error).__name__}: {str(error).splitlines()[0]})' in said[0]

    @pytest.mark.parametrize('share', [0.0, float('nan'), float('inf')])
    def test_a_clock_that_stands_still(self, tmp_path, table, clock, share):
        clock(lambda _: share)
        train(run_settings(tmp_path, table))
        reached = structure_of(tmp_path / 'epoch_6.pth')
        assert reached['reached']['latency'] <= 0.6
        assert reached['latency']['measured_ms'] is None
        assert f'the clock says {share:g} of the dense time' in log_of(tmp_path)

    def test_one_that_fails_after_a_correction(self, tmp_path, table, clock):
        """What the first event has learnt of the table holds on."""
        times = clock(lambda share: 1 / 0 if len(times.shares) > 1 else saving(0.75)(share))
        runner = train(run_settings(tmp_path, table, 0.7))
        assert len(times.shares) == 2
        share = toy_milliseconds(runner.model) / DENSE_MS
        assert saving(0.75)(share) <= 0.7 * (1 + SLOWER)
        assert structure_of(tmp_path / 'epoch_6.pth')['latency']['measured_ms'] is None

    def test_what_the_clock_never_reaches_is_cut_as_far_as_it_goes(self, tmp_path, table, clock):
        clock(lambda share: 0.8 + 0.2 * share)
        runner = train(run_settings(tmp_path, table))
        assert toy_milliseconds(runner.model) < 0.6 * DENSE_MS
        (line,) = (x for x in warnings_in(tmp_path) if 'was asked for' in x)
        assert 'latency 0.600 of the dense model' in line
        assert 'no choice was faster' in line

    def test_a_backend_that_does_not_start(self, tmp_path, table, monkeypatch):
        def broken(table):
            raise OSError('libonnxruntime.so: cannot open shared object file')

        monkeypatch.setattr(latency_target, 'time_share_on', broken)
        train(run_settings(tmp_path, table))
        (line,) = (x for x in warnings_in(tmp_path) if 'predicted and not measured' in x)
        assert 'the backend does not start (OSError: libonnxruntime.so: cannot open' in line

    def test_a_table_of_several_sizes(self, tmp_path, table):
        """No single network is known that could be timed; the layers are, and are enough."""
        content = json.loads(Path(table).read_text())
        content['networks']['0' * 16] = {'input': [1, 3, 16, 16]}
        merged = tmp_path / 'merged.json'
        merged.write_text(json.dumps(content))
        train(run_settings(tmp_path / 'run', str(merged)))
        (line,) = (x for x in warnings_in(tmp_path) if 'predicted and not measured' in x)
        assert 'it has several image sizes' in line
        assert structure_of(tmp_path / 'run' / 'epoch_6.pth')['reached']['latency'] <= 0.6


class TestResume:
    @pytest.mark.parametrize(
        ('hook', 'epoch', 'is_timed'),
        [(dict(interval=3), 2, False), (dict(interval=9, prune=4), 4, True)],
    )
    def test_equals_an_uninterrupted_run(self, tmp_path, table, clock, hook, epoch, is_timed):
        """From between two events, and from between the last one and the cut."""
        clock(saving(0.75))
        whole, again = (run_settings(tmp_path / n, table, hook=hook) for n in ('whole', 'again'))
        ended = train(whole)
        middle = tmp_path / 'whole' / f'epoch_{epoch}.pth'
        state = torch.load(middle, weights_only=False)['mmdet_adasap']
        assert 1.2 < state['correction'] < 1.5
        assert (state['measured'] is not None) == is_timed
        resumed = train(again | dict(load_from=str(middle), resume=True))
        assert_same_weights(resumed.model, ended.model, atol=0)
        first, second = (
            structure_of(tmp_path / name / 'epoch_6.pth') for name in ('whole', 'again')
        )
        assert first == second
        assert first['latency']['measured_ms'] is not None

    @pytest.mark.parametrize('step', [1, 16])
    def test_another_table_is_refused(self, tmp_path, table, step):
        kill_after(run_settings(tmp_path / 'run', table, hook=dict(round_to=None)), 14)
        other = toy_table(tmp_path / 'other.json', step=step, time=lambda i, o: 0.01 + i + o)
        with pytest.raises(StructureError, match='started with another latency table') as error:
            train(
                run_settings(tmp_path / 'run', str(other), hook=dict(round_to=None), resume=True)
            )
        assert '\n' not in str(error.value)
        assert LatencyTable.read(other).digest in str(error.value)

    def test_the_table_may_move(self, tmp_path, table):
        kill_after(run_settings(tmp_path / 'run', table), 14)
        moved = shutil.copy(table, tmp_path / 'moved.json')
        train(run_settings(tmp_path / 'run', str(moved), resume=True))
        assert structure_of(tmp_path / 'run' / 'epoch_6.pth')['reached']['latency'] <= 0.6

    @pytest.mark.parametrize(('key', 'value'), [('correction', 'x'), ('measured', -1.0)])
    def test_a_damaged_state_is_one_line(self, tmp_path, table, key, value):
        kill_after(run_settings(tmp_path, table), 14)
        file = tmp_path / 'epoch_2.pth'
        checkpoint = torch.load(file, weights_only=False)
        checkpoint['mmdet_adasap'][key] = value
        torch.save(checkpoint, file)
        with pytest.raises(StructureError, match=rf'^resume: mmdet_adasap\.{key} .* is {value!r}'):
            train(run_settings(tmp_path, table, load_from=str(file), resume=True))

    def test_a_checkpoint_of_before_the_clock(self, tmp_path, table):
        kill_after(run_settings(tmp_path, table), 14)
        file = tmp_path / 'epoch_2.pth'
        checkpoint = torch.load(file, weights_only=False)
        del checkpoint['mmdet_adasap']['correction'], checkpoint['mmdet_adasap']['measured']
        torch.save(checkpoint, file)
        train(run_settings(tmp_path, table, load_from=str(file), resume=True))
        assert structure_of(tmp_path / 'epoch_6.pth')['reached']['latency'] <= 0.6


class TestBeforeTheFirstStep:
    def test_a_target_that_is_met_already(self, tmp_path, table, clock):
        """A clock that runs slow must not get a network pruned that is fast enough."""
        times = clock(lambda share: 1.2 * share)
        runner = train(run_settings(tmp_path, table, '12 s'))
        assert runner.iter == 36
        assert toy_milliseconds(runner.model) == DENSE_MS
        assert times.shares == []
        (line,) = (x for x in warnings_in(tmp_path) if 'nothing will be removed' in x)
        assert "within target=dict(latency='12000ms', table=...) as it is" in line
        assert f'with {DENSE_MS:.3g} ms by the table' in line

    def test_below_the_floor(self, tmp_path, table):
        for latency in ('0.001ms', 0.01):
            runner = build(run_settings(tmp_path, table, latency))
            with pytest.raises(UnreachableTargetError) as error:
                runner.train()
            assert runner.iter == 0
            floor = re.search(r'cannot go below ([\d.]+) ms on that device', str(error.value))
            assert 0.001 < float(floor[1]) < 0.2 * DENSE_MS
            assert '\n' not in str(error.value)

    def test_a_table_of_another_model(self, tmp_path, table):
        content = json.loads(Path(table).read_text())
        content['layers'] = [e for e in content['layers'] if e['key']['op'] == 'conv']
        other = tmp_path / 'other.json'
        other.write_text(json.dumps(content))
        with pytest.raises(LatencyTableError, match='the table has not timed linear') as error:
            train(run_settings(tmp_path, str(other)))
        assert '\n' not in str(error.value)

    def test_a_table_of_another_size(self, tmp_path, table, monkeypatch):
        """The toy's samples are none of mmpretrain: no noise can stand for its images."""
        other = toy_table(tmp_path / 'other.json', shape=(1, 3, 16, 24))
        monkeypatch.setitem(sys.modules, 'mmpretrain.structures', None)  # as if not installed
        with pytest.raises(ValueError, match=r'^target\.table: it is of images of 16 x 24') as e:
            train(run_settings(tmp_path, str(other)))
        assert 'the first one that is validated has 8 x 8 pixels' in str(e.value)


class TestNoteOnTheStep:
    def note(self, cfg) -> str:
        folder = Path(cfg['work_dir'])
        train(cfg)
        return ''.join(x for x in log_of(folder).splitlines() if 'keep no multiple of' in x)

    def test_without_a_table_it_names_round_to(self, tmp_path):
        note = self.note(settings(tmp_path, dict(target=dict(params=0.4)), log_level='INFO'))
        assert 'keep no multiple of 16: ' in note
        assert 'round_to=16 may be faster at the same size' in note

    def test_with_a_table_it_says_what_it_costs(self, tmp_path):
        table = toy_table(tmp_path / 'table.json', step=4)
        note = self.note(run_settings(tmp_path / 'run', str(table), hook=dict(round_to=3)))
        found = re.search(r'no multiple of 4: .*beyond the multiples costs ([\d.]+) ms', note)
        assert 0 < float(found[1]) < DENSE_MS

    def test_groups_that_are_whole_are_no_fault_of_the_run(self, tmp_path):
        """Of 8 and 12 channels, both below the step of 16 where nobody knows the device."""
        cfg = settings(tmp_path, dict(target=dict(params=1.0)), log_level='INFO')
        assert self.note(cfg) == ''

    def test_nothing_is_said_where_all_are_multiples(self, tmp_path):
        table = toy_table(tmp_path / 'table.json', step=4)
        assert self.note(run_settings(tmp_path / 'run', str(table), hook=dict(round_to=4))) == ''


class TestOtherRuns:
    CASES = {
        'no validation': dict(val_dataloader=None, val_cfg=None, val_evaluator=None),
        'moving average': dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)]),
        'gradients that add up': dict(accumulative_counts=4),
        'one pass': dict(hook=dict(perturbation=None, finetune=None)),
        'solver': dict(hook=dict(solver='joint', objective='log')),
        'bfloat16': dict(type='AdaSAPAmpOptimWrapper', dtype='bfloat16'),
    }

    @pytest.mark.parametrize('case', CASES)
    def test_it_ends_within_the_limit(self, tmp_path, table, clock, case):
        clock(lambda share: 1.2 * share)
        given = dict(self.CASES[case])
        wrapper = {k: given.pop(k) for k in ('accumulative_counts', 'type', 'dtype') if k in given}
        cfg = run_settings(tmp_path, table, **given)
        cfg['optim_wrapper'] = cfg['optim_wrapper'] | wrapper
        runner = train(cfg)
        share = toy_milliseconds(runner.model) / DENSE_MS
        assert 0.55 < 1.2 * share <= 0.6 * (1 + SLOWER)
        for hook in runner.hooks:
            if type(hook).__name__ == 'EMAHook':
                averaged = hook.ema_model.module
                assert toy_milliseconds(averaged) == toy_milliseconds(runner.model)

    def test_training_that_ends_before_the_cut(self, tmp_path, table):
        stop = EarlyStoppingHook(monitor='score', patience=1, rule='less', stopping_threshold=1e9)
        runner = train(run_settings(tmp_path, table, custom_hooks=[stop]))
        assert runner.iter < 18
        assert 'the model is not cut' in log_of(tmp_path)
        structure = structure_of(next(tmp_path.glob('epoch_*.pth')))
        assert structure['latency']['measured_ms'] is None
