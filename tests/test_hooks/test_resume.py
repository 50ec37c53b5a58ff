# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which checkpoint train.py of mmdet and of mmpretrain resumes from, and what we say of it."""

import logging
import runpy
import sys

import pytest
import torch
from mmengine.runner import Runner

from _utils.adasap_runs import build, kill_after, train
from _utils.toy import settings
from mmdet_adasap.env import find_tool
from mmdet_adasap.hooks.resume import START_ANEW


@pytest.fixture
def started_by(tmp_path, monkeypatch):
    """Call train.py of a library with a config whose file has a load_from."""
    config = tmp_path / 'config.py'
    config.write_text("load_from = 'dense.pth'\nwork_dir = 'run'\n")

    def started_by(library, *options):
        pytest.importorskip(library)
        configs = []

        def from_cfg(cfg):
            configs.append(cfg)
            raise SystemExit  # nothing is trained

        monkeypatch.setattr(Runner, 'from_cfg', from_cfg)
        monkeypatch.setattr(sys, 'argv', ['train.py', str(config), *options])
        monkeypatch.setenv('LOCAL_RANK', '0')
        with pytest.raises(SystemExit):
            runpy.run_path(str(find_tool(f'{library}::train')), run_name='__main__')
        (cfg,) = configs
        return cfg.get('resume', False), cfg.load_from

    return started_by


@pytest.mark.parametrize(
    ('options', 'mmdet', 'mmpretrain'),
    [
        ('', (False, 'dense.pth'), (False, 'dense.pth')),
        ('--cfg-options load_from=x.pth', (False, 'x.pth'), (False, 'x.pth')),
        ('--resume', (True, None), (True, None)),
        ('--resume y.pth', (True, 'y.pth'), (True, 'y.pth')),
        ('--resume --cfg-options load_from=x.pth', (True, None), (True, 'x.pth')),
        ('--resume y.pth --cfg-options load_from=x.pth', (True, 'y.pth'), (True, 'x.pth')),
        ('--cfg-options resume=True', (True, 'dense.pth'), (True, 'dense.pth')),
    ],
)
def test_what_the_tools_make_of_their_options(started_by, options, mmdet, mmpretrain):
    """What the messages that advise --resume and load_from rely on."""
    assert started_by('mmdet', *options.split()) == mmdet
    assert started_by('mmpretrain', *options.split()) == mmpretrain


def dense(folder):
    """The checkpoints of a training without AdaSAPHook."""
    cfg = settings(folder)
    del cfg['default_hooks']['adasap']
    kill_after(cfg, 20)
    return folder / 'epoch_3.pth'


def test_resumed_from_the_start_of_a_run_by_mistake(tmp_path):
    """mmpretrain's train.py ... --resume --cfg-options load_from=dense.pth."""
    start = str(dense(tmp_path / 'dense'))
    with pytest.raises(ValueError, match='no pruned structure') as error:
        train(settings(tmp_path / 'run', load_from=start, resume=True))
    assert str(error.value).startswith(f'resume: {start} is at iteration ')
    assert str(error.value).endswith(f'or {START_ANEW}')


def warnings_of(run):
    """What is logged as a warning about resuming; mmengine's loggers do not pass it on."""
    caught = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: caught.append(record.getMessage())
    run.logger.addHandler(handler)
    run.train()
    return [text for text in caught if text.startswith('resume: the run goes on from')]


@pytest.mark.parametrize(
    ('load_from', 'note', 'warns'),
    [
        ('other/epoch_2.pth', None, True),
        ('run/epoch_1.pth', None, False),
        (None, None, False),
        # Of a CheckpointHook with an out_dir; damaged; empty.
        ('other/epoch_2.pth', b'{}/other/epoch_2.pth', False),
        ('other/epoch_2.pth', b'\xff\xfe', False),
        ('other/epoch_2.pth', b'', False),
    ],
)
def test_says_when_newer_checkpoints_of_the_run_are_passed_over(tmp_path, load_from, note, warns):
    for name, iterations in (('other', 12), ('run', 14)):
        kill_after(settings(tmp_path / name), iterations)
    if note is not None:
        note = note.replace(b'{}', str(tmp_path).encode())
        (tmp_path / 'run' / 'last_checkpoint').write_bytes(note)
    named = load_from and str(tmp_path / load_from)
    said = warnings_of(build(settings(tmp_path / 'run', load_from=named, resume=True)))
    assert len(said) == warns
    if warns:
        assert said[0].startswith(f'resume: the run goes on from {named} and not from {tmp_path}/')
        assert 'epoch_2.pth, the newest of its own folder' in said[0]


def test_another_solver_is_refused(tmp_path):
    """Runs of a version without the setting were by ranks."""
    kill_after(settings(tmp_path), 14)
    again = settings(tmp_path, dict(solver='joint'), resume=True)
    with pytest.raises(ValueError, match=r"started with solver='ranked' and goes on with solver="):
        train(again)
    file = tmp_path / 'epoch_2.pth'
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint['mmdet_adasap']['settings']['solver']
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match=r"started with solver='ranked' and goes on with solver="):
        train(settings(tmp_path, dict(solver='joint'), load_from=str(file), resume=True))


def test_a_run_of_before_the_objective_was_of_the_sum(tmp_path):
    kill_after(settings(tmp_path, dict(solver='joint')), 14)
    file = tmp_path / 'epoch_2.pth'
    checkpoint = torch.load(file, weights_only=False)
    assert checkpoint['mmdet_adasap']['settings'].pop('objective') == 'sum'
    torch.save(checkpoint, file)
    hook = dict(solver='joint', objective='log')
    with pytest.raises(ValueError, match=r"started with objective='sum' and goes on with obj"):
        train(settings(tmp_path, hook, load_from=str(file), resume=True))
    train(settings(tmp_path, dict(solver='joint'), load_from=str(file), resume=True))


def test_a_joint_run_is_resumed_to_the_same_end(tmp_path):
    whole = settings(tmp_path / 'whole', dict(solver='joint'))
    train(whole)
    kill_after(settings(tmp_path / 'killed', dict(solver='joint')), 14)
    train(settings(tmp_path / 'killed', dict(solver='joint'), resume=True))
    ends = [
        torch.load(tmp_path / name / 'epoch_6.pth', weights_only=False)['state_dict']
        for name in ('whole', 'killed')
    ]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
