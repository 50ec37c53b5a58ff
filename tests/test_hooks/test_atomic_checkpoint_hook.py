# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import errno
import json
import multiprocessing
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import FileClient, LocalBackend, register_backend
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner, load_checkpoint

import mmdet_adasap  # noqa: F401
from _utils.toy import ToyModel, loader
from mmdet_adasap.apis import load_pruned
from mmdet_adasap.checkpoint.safe_load import read_checkpoint
from mmdet_adasap.errors import UnreadableCheckpointError
from mmdet_adasap.fileio import PARTIAL
from mmdet_adasap.hooks import AtomicCheckpointHook
from mmdet_adasap.hooks.atomic_checkpoint_hook import NOTE

FULL = OSError(errno.ENOSPC, 'No space left on device')


class Scores(BaseMetric):
    """Scores that rise and fall with the epochs, whatever the model does."""

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        self.calls = getattr(self, 'calls', 0) + 1
        return dict(score=[3.0, 5.0, 4.0, 6.0][self.calls % 4], other=float(self.calls))


def settings(work_dir: Path, hook: dict | None = None, atomic: bool = True, **kwargs) -> dict:
    """A run of 4 epochs of 2 iterations."""
    cfg = dict(
        work_dir=str(work_dir),
        train_dataloader=loader(batch_size=12),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        val_dataloader=loader(batch_size=24, shuffle=False),
        val_cfg=dict(),
        val_evaluator=dict(type=Scores),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=4, by_epoch=True),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2),
            checkpoint=dict(type='AtomicCheckpointHook' if atomic else 'CheckpointHook')
            | (hook or {}),
        ),
        randomness=dict(seed=3),
        default_scope='mmengine',
        log_level='ERROR',
    )
    return cfg | kwargs


def build(cfg: dict) -> Runner:
    torch.manual_seed(0)
    build.count += 1
    name = f'{Path(cfg["work_dir"]).name}_{os.getpid()}_{build.count}'
    return Runner(model=ToyModel(), **cfg, experiment_name=name)


build.count = 0


def train(cfg: dict) -> Runner:
    runner = build(cfg)
    runner.train()
    return runner


def checkpoints(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob('*.pth'))


def hidden(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob('.*'))


def without_digest(name: str) -> str:
    """mmengine's digest is of a pickle with addresses in it: another in every call."""
    return re.sub(r'-[0-9a-f]{8}\.pth$', '-DIGEST.pth', name)


def plain(value: object, root: str) -> object:
    """What has to be equal in two checkpoints: all but times and the names of the two runs."""
    if isinstance(value, dict):
        own = ('time', 'eta', 'cfg', 'experiment_name')
        return {k: plain(v, root) for k, v in value.items() if not str(k).endswith(own)}
    if isinstance(value, list | tuple):
        return [plain(v, root) for v in value]
    if isinstance(value, HistoryBuffer):
        return [row.tolist() for row in value.data]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return value.replace(root, '') if isinstance(value, str) else value


def contents(work_dir: Path, root: Path) -> dict[str, object]:
    """Names and contents of all that the hook writes."""
    found = {
        str(without_digest(str(file.relative_to(root)))): plain(read_checkpoint(file), str(root))
        for file in root.rglob('*.pth')
    }
    last = work_dir / 'last_checkpoint'
    if last.exists():
        found['last_checkpoint'] = last.read_text().replace(str(root), '')
    return found


def loaded_last(work_dir: Path) -> dict:
    """What ``last_checkpoint`` names; it must be whole."""
    return read_checkpoint((work_dir / 'last_checkpoint').read_text())


def assert_same_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    right = right.state_dict()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right[name]), name


BEST = dict(save_best='score', rule='greater')


def test_arguments_that_there_are_not():
    """CheckpointHook itself takes them, and fails when the first checkpoint is to be saved."""
    with pytest.raises(
        TypeError,
        match=r"^AtomicCheckpointHook: unexpected 'intervall'; did you mean 'interval'\?$",
    ):
        AtomicCheckpointHook(intervall=3)
    with pytest.raises(
        TypeError, match=r"^AtomicCheckpointHook: unexpected 'xyz'; it takes .*rule"
    ):
        HOOKS.build(dict(type='AtomicCheckpointHook', interval=3, xyz=1))
    assert AtomicCheckpointHook(3, save_best='auto', rule='greater').interval == 3


class TestLikeCheckpointHook:
    @pytest.mark.long
    @pytest.mark.parametrize(
        'hook',
        [
            dict(interval=1),
            dict(interval=1, max_keep_ckpts=2),
            dict(interval=1, max_keep_ckpts=1, **BEST),
            dict(interval=3, save_last=False, **BEST),
            dict(interval=1, save_begin=3, save_optimizer=False, save_param_scheduler=False),
            dict(interval=1, max_keep_ckpts=2, by_epoch=False, **BEST),
            dict(interval=3, by_epoch=False, filename_tmpl='at_{}.pth', published_keys='meta'),
            dict(interval=1, save_best='auto', rule='less', published_keys=['meta', 'state_dict']),
            dict(
                interval=1,
                max_keep_ckpts=2,
                save_best=['score', 'other'],
                rule='greater',
                published_keys=['state_dict'],
            ),
            dict(interval=1, out_dir='out', max_keep_ckpts=2, **BEST),
        ],
        ids=str,
    )
    def test_files_and_contents(self, tmp_path, hook):
        written = []
        for atomic in (False, True):
            root = tmp_path / ('ours' if atomic else 'theirs')
            own = hook | (dict(out_dir=str(root / 'out')) if 'out_dir' in hook else {})
            runner = train(settings(root / 'run', own, atomic))
            written.append(contents(root / 'run', root))
            assert not hidden(runner_folder := Path(runner.work_dir)), runner_folder
        theirs, ours = written
        assert theirs.keys() == ours.keys()
        assert any(name.endswith('.pth') for name in ours)
        for name in ours:
            assert ours[name] == theirs[name], name

    @pytest.mark.parametrize('keep', [1, 2])
    def test_resumed(self, tmp_path, keep):
        """With fewer files kept than before, and with a best checkpoint from before."""
        written = []
        for atomic in (False, True):
            root = tmp_path / ('ours' if atomic else 'theirs')
            hook = dict(interval=1, max_keep_ckpts=3, **BEST)
            first = dict(train_cfg=dict(by_epoch=True, max_epochs=3))
            train(settings(root / 'run', hook, atomic, **first))
            hook['max_keep_ckpts'] = keep
            more = dict(train_cfg=dict(by_epoch=True, max_epochs=5), resume=True)
            train(settings(root / 'run', hook, atomic, **more))
            written.append(contents(root / 'run', root))
        assert written[0] == written[1]
        assert len([name for name in written[1] if name.startswith('run/epoch')]) == keep

    def test_is_found_by_its_name(self):
        assert HOOKS.get('AtomicCheckpointHook') is AtomicCheckpointHook

    @pytest.mark.parametrize(
        'hook', [dict(backend_args=dict(backend='local')), dict(file_client_args={})]
    )
    def test_backend_of_the_user_is_left_alone(self, tmp_path, monkeypatch, hook):
        def refuse(*_, **__):
            raise AssertionError('written by us')

        monkeypatch.setattr('mmdet_adasap.hooks.atomic_checkpoint_hook.write_atomically', refuse)
        cfg = settings(tmp_path, dict(interval=1, max_keep_ckpts=1, **BEST) | hook)
        train(cfg)
        assert checkpoints(tmp_path) == ['best_score_epoch_3.pth', 'epoch_4.pth']

    def test_remote_folder_is_left_alone(self, tmp_path):
        class Remote(LocalBackend):
            """Stands for an object store, ``far://run``."""

            def join_path(self, filepath, *filepaths):
                return '/'.join([filepath, *filepaths])

            def put(self, obj, filepath):
                super().put(obj, filepath.replace('far:/', str(tmp_path / 'far')))

        for register in (register_backend, FileClient.register_backend):
            register('far', Remote, prefixes='far', force=True)
        train(settings(tmp_path / 'run', dict(interval=1, out_dir='far://x')))
        assert len(list((tmp_path / 'far').rglob('epoch_*.pth'))) == 4
        assert (tmp_path / 'run' / 'last_checkpoint').read_text() == 'far://x/run/epoch_4.pth'


class Torn:
    """A file whose disk becomes full in the middle."""

    def __init__(self, file) -> None:
        self._file = file

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def write(self, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self.torn()

    def torn(self) -> None:
        raise OSError(*FULL.args)


class Operations:
    """Counts the operations on files that a run is saved with, and lets one of them end it.

    Args:
        end (int): Which one, from 0 on.
        how (Callable): Called in its place.
        kinds (tuple[str]): Those that count, of 'write', 'fsync', 'replace' and 'unlink'.
    """

    def __init__(self, end: int, how, kinds: tuple[str, ...]) -> None:
        self.end, self.how, self.kinds = end, how, kinds
        self.count = 0

    def due(self, kind: str) -> bool:
        self.count += kind in self.kinds
        return kind in self.kinds and self.count == self.end + 1

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        opened, how = Path.open, self.how

        def open_(path, mode='r', *args, **kwargs):
            file = opened(path, mode, *args, **kwargs)
            if mode == 'xb' and self.due('write'):
                file = Torn(file)
                file.torn = how
            return file

        def ending(kind, operation):
            def call(*args, **kwargs):
                if self.due(kind):
                    how()
                return operation(*args, **kwargs)

            return call

        def fsync(number, sync=os.fsync):
            if not os.path.isdir(f'/proc/self/fd/{number}') and self.due('fsync'):
                how()
            sync(number)

        monkeypatch.setattr(Path, 'open', open_)
        monkeypatch.setattr(os, 'fsync', fsync)
        for kind, name in (('replace', 'replace'), ('unlink', 'remove'), ('unlink', 'unlink')):
            monkeypatch.setattr(os, name, ending(kind, getattr(os, name)))


def full_disk() -> None:
    raise OSError(*FULL.args)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


SAVING = dict(interval=1, max_keep_ckpts=2, **BEST)


class TestFullDisk:
    @pytest.mark.long
    @pytest.mark.parametrize('kind', ['write', 'fsync', 'replace'])
    @pytest.mark.parametrize('end', [0, 1, 4, 7, 11])
    def test_old_files_stay_and_the_run_goes_on(self, tmp_path, kind, end):
        whole = train(settings(tmp_path / 'whole', SAVING))
        folder = tmp_path / 'run'
        runner = build(settings(folder, SAVING))
        named = set()
        with pytest.MonkeyPatch.context() as monkeypatch:
            Operations(end, full_disk, (kind,)).patch(monkeypatch)
            message = (
                r'/run/\S+ is not written \(No space left on device\).*make room.*--resume, and'
            )
            with pytest.raises(OSError, match=message) as error:
                runner.train()
            assert error.value.errno == errno.ENOSPC
        assert not half_files(folder)
        for name in checkpoints(folder):
            named.add(name)
            read_checkpoint(folder / name)
        if (folder / 'last_checkpoint').exists():
            record = loaded_last(folder)['message_hub']['runtime_info']
            # All that it names is there: nothing was removed before it was replaced.
            kept = {f'epoch_{step}.pth' for step in record['keep_ckpt_ids']}
            assert kept <= named
            assert 'best_ckpt' not in record or Path(record['best_ckpt']).name in named
        resumed = train(settings(folder, SAVING, resume=True))
        assert_same_weights(resumed.model, whole.model)
        assert not hidden(folder)

    def test_published_file(self, tmp_path):
        cfg = settings(tmp_path, dict(interval=4, published_keys=['state_dict']))
        with pytest.MonkeyPatch.context() as monkeypatch:
            Operations(2, full_disk, ('write',)).patch(monkeypatch)
            with pytest.raises(OSError, match=r'epoch_4-[0-9a-f]{8}\.pth is not written'):
                train(cfg)
        assert checkpoints(tmp_path) == ['epoch_4.pth']
        assert not hidden(tmp_path)


def in_a_child(function, *args) -> multiprocessing.Process:
    """A copy of this process, which has imported all that a run needs."""

    def quietly() -> None:
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        function(*args)

    process = multiprocessing.get_context('fork').Process(target=quietly)
    process.start()
    return process


def train_until(cfg: dict, end: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        Operations(end, kill, ('write', 'fsync', 'replace', 'unlink')).patch(monkeypatch)
        train(cfg)


def killed_at(cfg: dict, end: int) -> bool:
    """Whether the run came to that operation, at which it is killed."""
    child = in_a_child(train_until, cfg, end)
    child.join(120)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


@pytest.mark.long
class TestKilled:
    def go_on(self, tmp_path: Path, whole: Runner, end: int) -> bool:
        """Kill a run at one operation, look at what it leaves, and let it go on."""
        folder = tmp_path / f'at_{end}'
        if not killed_at(settings(folder, SAVING), end):
            return False
        if (folder / 'last_checkpoint').exists():
            loaded_last(folder)
        for name in checkpoints(folder):
            read_checkpoint(folder / name)
        resumed = train(settings(folder, SAVING, resume=True))
        assert_same_weights(resumed.model, whole.model)
        assert not hidden(folder)
        epochs = [name for name in checkpoints(folder) if name.startswith('epoch')]
        assert epochs == ['epoch_3.pth', 'epoch_4.pth']
        # One that was better, but is in no record yet, may be left beside the best.
        best = [name for name in checkpoints(folder) if name.startswith('best')]
        assert len(best) <= 2
        record = loaded_last(folder)['message_hub']['runtime_info']
        assert Path(record['best_ckpt']).name in best
        return True

    @pytest.mark.parametrize('end', [10, 24, 33])
    def test_at_one_operation(self, tmp_path, end):
        whole = train(settings(tmp_path / 'whole', SAVING))
        assert self.go_on(tmp_path, whole, end)

    @pytest.mark.slow
    def test_at_every_operation(self, tmp_path):
        whole = train(settings(tmp_path / 'whole', SAVING))
        end = 0
        while self.go_on(tmp_path, whole, end):
            end += 1
        print(f'killed at each of {end} operations')
        assert end > 40

    @pytest.mark.parametrize('kills', [5, pytest.param(100, marks=pytest.mark.slow)])
    def test_at_any_moment(self, tmp_path, kills):
        """A run that does little but save, killed again and again."""
        chance = random.Random(kills)
        hook = dict(interval=1, by_epoch=False, max_keep_ckpts=2)
        cfg = settings(
            tmp_path,
            hook,
            resume=True,
            train_dataloader=loader() | dict(sampler=dict(type='InfiniteSampler')),
            train_cfg=dict(by_epoch=False, max_iters=10**6, val_interval=10**6),
            param_scheduler=None,
        )
        done = halves = both = 0
        for number in range(kills):
            child = in_a_child(train_large, cfg)
            wait_for(
                lambda at=done, child=child: last_iteration(tmp_path) > at or not child.is_alive()
            )
            if number % 2:  # surely within a save
                wait_for(lambda child=child: half_files(tmp_path) or not child.is_alive())
            else:
                time.sleep(chance.uniform(0, 0.1))
            assert child.is_alive()
            child.kill()
            child.join()
            halves += bool(half_files(tmp_path))
            both += len(checkpoints(tmp_path)) > 2
            now = loaded_last(tmp_path)['meta']['iter']
            assert now > done
            done = now
        print(
            f'{kills} kills: {halves} within a file, {both} before the outdated one was removed, '
            f'{done} iterations'
        )
        assert halves >= kills / 5 or kills < 100
        resumed = build(cfg | dict(train_cfg=dict(by_epoch=False, max_iters=done + 3)))
        resumed.model.register_buffer('ballast', torch.zeros(BALLAST))
        resumed.train()
        assert resumed.iter == done + 3
        assert set(checkpoints(tmp_path)) == {f'iter_{done + i}.pth' for i in (2, 3)}
        assert not hidden(tmp_path)


BALLAST = 2_000_000


def train_large(cfg: dict) -> None:
    """Most of the time goes into 8 MB of checkpoint."""
    runner = build(cfg)
    runner.model.register_buffer('ballast', torch.zeros(BALLAST))
    runner.train()


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'nothing was saved'
        time.sleep(0.002)


def half_files(folder: Path) -> list[str]:
    return [name for name in hidden(folder) if PARTIAL.fullmatch(name)]


def last_iteration(folder: Path) -> int:
    last = folder / 'last_checkpoint'
    return int(re.search(r'(\d+)\.pth$', last.read_text())[1]) if last.exists() else 0


class TestLeftovers:
    def note(self, folder: Path, saved: str, outdated: list[str]) -> None:
        (folder / NOTE).write_text(json.dumps({'saved': saved, 'outdated': outdated}))

    def run_of_two(self, folder: Path) -> dict:
        cfg = settings(folder, SAVING, train_cfg=dict(by_epoch=True, max_epochs=2))
        train(cfg)
        return cfg

    def test_half_files_go_when_training_starts(self, tmp_path):
        ours = tmp_path / '.epoch_1.pth.0123abcd.mmdet_adasap-partial'
        other = tmp_path / '.epoch_1.pth.partial'
        ours.touch()
        other.touch()
        train(settings(tmp_path))
        assert not ours.exists()
        assert other.exists()

    def test_outdated_file_goes(self, tmp_path):
        cfg = self.run_of_two(tmp_path)
        (tmp_path / 'epoch_0.pth').touch()
        self.note(tmp_path, 'epoch_2.pth', ['epoch_0.pth'])
        train(cfg | dict(resume=True))
        assert not (tmp_path / 'epoch_0.pth').exists()
        assert not hidden(tmp_path)

    @pytest.mark.parametrize(
        ('saved', 'outdated', 'start'),
        [
            ('epoch_9.pth', 'epoch_0.pth', dict(resume=True)),  # it never came to be
            ('epoch_2.pth', 'epoch_1.pth', dict(resume=True)),  # the record keeps it
            ('epoch_2.pth', 'best_score_epoch_1.pth', dict(resume=True)),  # and this is the best
            ('epoch_2.pth', 'epoch_0.pth', dict(resume=False)),  # another run
            ('epoch_2.pth', '../epoch_0.pth', dict(resume=True)),
        ],
    )
    def test_what_is_not_surely_outdated_stays(self, tmp_path, saved, outdated, start):
        folder = tmp_path / 'run'
        cfg = self.run_of_two(folder)
        file = folder / outdated
        if not file.exists():
            file.touch()
        self.note(folder, saved, [outdated])
        runner = build(cfg | start)
        # What comes before the first iteration, alone.
        runner.train_loop.run = lambda: runner.call_hook('before_train')
        runner.train()
        assert file.exists()
        assert not hidden(folder)

    @pytest.mark.parametrize('text', ['', 'no note', '[1]', '{"saved": 1}'])
    def test_other_note(self, tmp_path, text):
        cfg = self.run_of_two(tmp_path)
        before = checkpoints(tmp_path)
        (tmp_path / NOTE).write_text(text)
        train(cfg | dict(resume=True))
        assert checkpoints(tmp_path) == before


class TestUnreadable:
    """One message that names the file and what to go on from; the model stays as it was."""

    @pytest.fixture(scope='class')
    def trained(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp('run')
        train(settings(folder, dict(interval=1, published_keys=['state_dict'])))
        return folder

    @pytest.fixture
    def folder(self, trained, tmp_path) -> Path:
        """Epochs 1 and 4 of a run, a younger published file, and a younger one that is torn."""
        for age, name in enumerate(('epoch_4.pth', 'epoch_1.pth')):
            (tmp_path / name).write_bytes((trained / name).read_bytes())
            os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
        (published,) = trained.glob('epoch_4-*.pth')
        (tmp_path / published.name).write_bytes(published.read_bytes())
        (tmp_path / 'torn.pth').write_bytes((trained / 'epoch_4.pth').read_bytes()[:5000])
        return tmp_path

    DAMAGE = {
        'truncated': lambda whole: whole[: len(whole) // 2],
        'without its end': lambda whole: whole[:-30],
        'empty': lambda whole: b'',
        'zeros': lambda whole: bytes(len(whole)),
        'text': lambda whole: b'version https://git-lfs.github.com/spec/v1\n',
    }

    @pytest.mark.parametrize('damage', DAMAGE)
    @pytest.mark.parametrize('resume', [True, False])
    def test_damaged(self, folder, damage, resume):
        bad = folder / 'epoch_5.pth'
        bad.write_bytes(self.DAMAGE[damage]((folder / 'epoch_4.pth').read_bytes()))
        runner = build(settings(folder / 'next', load_from=str(bad), resume=resume))
        before = {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
        newest = re.escape(str(folder / 'epoch_4.pth'))
        message = rf'^{re.escape(str(bad))} cannot be read as a checkpoint \(.*--resume {newest}'
        with pytest.raises(UnreadableCheckpointError, match=message) as error:
            runner.load_or_resume()
        assert '\n' not in str(error.value)
        for name, tensor in runner.model.state_dict().items():
            assert torch.equal(tensor, before[name])
        assert isinstance(error.value, ValueError)

    def test_missing(self, folder):
        message = rf'missing\.pth is missing; .*--resume {re.escape(str(folder))}/epoch_4\.pth'
        with pytest.raises(FileNotFoundError, match=message):
            load_checkpoint(ToyModel(), str(folder / 'missing.pth'))

    def test_nothing_else_is_there(self, tmp_path):
        (tmp_path / 'epoch_1.pth').touch()
        with pytest.raises(
            UnreadableCheckpointError, match='there is no whole checkpoint beside it'
        ):
            load_checkpoint(ToyModel(), str(tmp_path / 'epoch_1.pth'))

    def test_one_without_optimizer_comes_second(self, folder):
        (folder / 'epoch_1.pth').unlink()
        weights = read_checkpoint(folder / 'epoch_4.pth')
        del weights['optimizer']
        torch.save(weights, folder / 'best_score_epoch_4.pth')
        with pytest.raises(UnreadableCheckpointError, match=r'--resume \S+/epoch_4\.pth'):
            load_checkpoint(ToyModel(), str(folder / 'torn.pth'))
        (folder / 'epoch_4.pth').unlink()
        with pytest.raises(
            UnreadableCheckpointError, match=r'--resume \S+/best_score_epoch_4\.pth'
        ):
            load_checkpoint(ToyModel(), str(folder / 'torn.pth'))

    @pytest.mark.parametrize(
        ('record', 'message'),
        [
            (b'', 'last_checkpoint is empty; '),
            (b'\n', 'last_checkpoint is empty; '),
            (b'work_dirs/gone/epoch_5.pth', "last_checkpoint names 'work_dirs/gone/epoch_5.pth'"),
            (bytes(20), 'last_checkpoint names .* which is missing; '),
            (b'\xff\xfe', 'last_checkpoint is damaged; '),
        ],
    )
    def test_last_checkpoint(self, folder, record, message):
        (folder / 'last_checkpoint').write_bytes(record)
        runner = build(settings(folder, resume=True))
        newest = re.escape(str(folder / 'epoch_4.pth'))
        with pytest.raises((ValueError, OSError), match=rf'{message}.*--resume {newest}'):
            runner.load_or_resume()

    def test_last_checkpoint_that_is_whole(self, folder):
        (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
        runner = build(settings(folder, resume=True))
        runner.load_or_resume()
        assert runner.epoch == 1

    def test_a_device_that_fails_is_not_the_file_s_fault(self, folder):
        def fail(storage, location):
            raise RuntimeError('no such device')

        with pytest.raises(RuntimeError, match=r'^no such device$'):
            load_checkpoint(ToyModel(), str(folder / 'epoch_4.pth'), map_location=fail)

    def test_code_in_a_neighbour_is_not_run(self, folder):
        class Payload:
            def __reduce__(self):
                return Path.touch, (folder / 'was run',)

        torch.save({'meta': {}, 'message_hub': Payload()}, folder / 'evil.pth')
        with pytest.raises(UnreadableCheckpointError, match=r'--resume \S+/epoch_4\.pth'):
            load_checkpoint(ToyModel(), str(folder / 'torn.pth'))
        assert not (folder / 'was run').exists()


def test_published_file_keeps_its_structure(tmp_path):
    """Read by plain torch.load, as mmdet's publish_model.py reads what it is given."""
    hook = dict(interval=1, published_keys=['meta', 'state_dict'])
    cfg = settings(tmp_path, hook)
    cfg['default_hooks']['adasap'] = dict(
        type='AdaSAPHook',
        warmup=1,
        prune=1,
        target=dict(params=0.5),
        interval=1,
        round_to=1,
        perturbation=None,
        finetune=None,
    )
    slim = train(cfg).model.eval()
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(tmp_path / 'epoch_4.pth', weights_only=True)
    (published,) = tmp_path.glob('epoch_4-*.pth')
    assert set(torch.load(published, weights_only=True)) == {'meta', 'state_dict'}
    model = ToyModel()
    assert load_pruned(model, str(published))['reached']['params'] <= 0.5
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.eval()(images), slim(images))
