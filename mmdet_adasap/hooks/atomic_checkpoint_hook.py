# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import hashlib
import inspect
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner, save_checkpoint
from mmengine.utils import mkdir_or_exist

from ..fileio import remove_partial_files, write_atomically
from ..registry import unexpected_key
from .runner_state import is_resumed

BACKEND_ARGS = dict(backend='mmdet_adasap.atomic')
NOTE = '.outdated_checkpoints'
OVERRIDDEN = ('_save_checkpoint_with_step', '_save_best_checkpoint', '_publish_model')
"""Methods of mmengine's hook that are not public; without them files would be written in place."""
REMEDY = (
    'make room on that disk (max_keep_ckpts of the checkpoint hook keeps fewer files), then go on '
    'with --resume, and without load_from in --cfg-options'
)


class AtomicBackend(LocalBackend):
    """Local files that are written in one piece, and can be removed later than asked for.

    CheckpointHook writes and removes through a backend, which it finds by its name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outdated: list[str] | None = None
        """What is to be removed later; None while files are removed at once."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes, as :func:`~mmdet_adasap.fileio.write_atomically` does."""
        mkdir_or_exist(os.path.dirname(filepath))
        write_atomically(filepath, obj, REMEDY)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text likewise."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, or note that it is to be removed later."""
        if self.outdated is None:
            super().remove(filepath)
        else:
            self.outdated.append(str(filepath))

    def rmtree(self, dir_path: str | Path) -> None:
        """Remove a folder, or note that it is to be removed later."""
        if self.outdated is None:
            super().rmtree(dir_path)
        else:
            self.outdated.append(str(dir_path))


register_backend(BACKEND_ARGS['backend'], AtomicBackend, force=True)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook for runs that may be killed at any moment, with its arguments.

    mmengine deletes the outdated checkpoint, writes the new one in place, and then
    ``last_checkpoint``, so that a run which is killed meanwhile has nothing to go on from. Here
    a file is written beside its place, brought to the disk and renamed, and only then is what it
    replaces deleted: ``last_checkpoint`` always names a whole file. The disk needs room for one
    checkpoint more than ``max_keep_ckpts``. All else, names and contents, is mmengine's.

    That goes for local folders. With ``backend_args``, ``file_client_args`` or a remote
    ``out_dir`` it is mmengine's hook.

    Raises:
        SettingError: If an argument is none of CheckpointHook's.
    """

    atomic = False

    def __init__(self, *args, **kwargs) -> None:
        # CheckpointHook hands what it does not know to save_checkpoint, which fails on it hours
        # later, when the first checkpoint is to be saved.
        known = set(inspect.signature(CheckpointHook.__init__).parameters) - {'self', 'kwargs'}
        for key in kwargs.keys() - known:
            raise unexpected_key('AtomicCheckpointHook', key, sorted(known))
        super().__init__(*args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Choose the backend, and remove what a killed run has left half done."""
        missing = [name for name in OVERRIDDEN if not hasattr(CheckpointHook, name)]
        if missing:
            raise RuntimeError(
                f"type='AtomicCheckpointHook': the CheckpointHook of this mmengine has no "
                f'{", ".join(missing)}, where files were to be written otherwise; use '
                f"type='CheckpointHook', or the mmengine of requirements/"
            )
        self.atomic = (
            isinstance(runner, Runner)  # others save in a way of their own
            and self.file_client_args is None
            and self.backend_args in (None, BACKEND_ARGS)
            and type(get_file_backend(self.out_dir or runner.work_dir)) is LocalBackend
        )
        if self.atomic:
            self.backend_args = BACKEND_ARGS
        else:
            runner.logger.warning(
                'AtomicCheckpointHook leaves writing to the backend or the runner of the config, '
                'as CheckpointHook does'
            )
        super().before_train(runner)
        if self.atomic and is_main_process():
            for folder in {runner.work_dir, self.out_dir}:
                for file in remove_partial_files(folder):
                    runner.logger.info(f'{file}, left by a run that was killed, is removed')
            self._finish_removal(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self.atomic:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        with self._remove_at_the_end(runner):
            self._keep(runner, step)
            filename = self.filename_tmpl.format(step)
            self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            if is_main_process():
                self._note_outdated(runner)
            runner.save_checkpoint(
                self.out_dir,
                filename,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                last = os.path.join(runner.work_dir, 'last_checkpoint')
                self.file_backend.put_text(str(self.last_ckpt), last)

    def _keep(self, runner: Runner, step: int) -> None:
        """Let the oldest checkpoint go if there is one too many with this step."""
        # A step comes twice in an epoch when its model turns out to be the best.
        if self.max_keep_ckpts <= 0 or step in list(self.keep_ckpt_ids)[-1:]:
            return
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            if is_main_process():
                self._remove(self.file_backend.join_path(self.out_dir, oldest))
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.atomic:
            super()._save_best_checkpoint(runner, metrics)
            return
        with self._remove_at_the_end(runner):
            super()._save_best_checkpoint(runner, metrics)

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        # That of mmengine 0.10 calls save_checkpoint without backend_args, so that the file is
        # written in place; all else is as there.
        if not self.atomic:
            super()._publish_model(runner, ckpt_path)
            return
        checkpoint = CheckpointLoader.load_checkpoint(ckpt_path, 'cpu')
        removed = [key for key in checkpoint if key not in self.published_keys]
        for key in removed:
            del checkpoint[key]
        digest = hashlib.sha256(pickle.dumps(checkpoint)).hexdigest()
        published = f'{os.path.splitext(ckpt_path)[0]}-{digest[:8]}.pth'
        save_checkpoint(checkpoint, published, backend_args=self.backend_args)
        without = f' without {removed}, which published_keys does not name' if removed else ''
        runner.logger.info(f'The checkpoint ({ckpt_path}) is published to {published}{without}')

    # What is removed when the new file is there

    @contextmanager
    def _remove_at_the_end(self, runner: Runner) -> Iterator[None]:
        """Remove what is outdated at the end, and nothing if saving fails."""
        if self.file_backend.outdated is not None:
            yield  # the best checkpoint, which saves the last one again
            return
        self.file_backend.outdated = []
        try:
            yield
            outdated = self.file_backend.outdated
        finally:
            self.file_backend.outdated = None
        in_use = {os.path.basename(name) for name in self._in_use(runner)}
        for path in outdated:
            # A best checkpoint of the same step has the same name.
            if os.path.basename(path) not in in_use:
                self._remove(path)
        if outdated:
            Path(runner.work_dir, NOTE).unlink(missing_ok=True)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as DeepSpeed saves them
            self.file_backend.rmtree(path)

    def _in_use(self, runner: Runner) -> list[str]:
        """Return the checkpoints that the run's message hub names; each of them holds it."""
        info = runner.message_hub.runtime_info
        kept = [self.filename_tmpl.format(step) for step in info.get('keep_ckpt_ids', [])]
        named = [
            value
            for key, value in info.items()
            if (key == 'last_ckpt' or key.startswith('best_ckpt')) and value
        ]
        return [*kept, *map(str, named)]

    def _note_outdated(self, runner: Runner) -> None:
        """Note what is to go once this checkpoint is there, for a run that is killed then."""
        names = [
            os.path.basename(path)
            for path in self.file_backend.outdated
            if os.path.dirname(path) == str(self.out_dir)
        ]
        if names:
            note = {'saved': os.path.basename(self.last_ckpt), 'outdated': names}
            self.file_backend.put_text(json.dumps(note), os.path.join(runner.work_dir, NOTE))

    def _finish_removal(self, runner: Runner) -> None:
        """Remove what the run that is resumed had noted as outdated, and nothing else."""
        file = Path(runner.work_dir, NOTE)
        if not file.is_file():
            return
        with suppress(ValueError, KeyError, TypeError):  # not a note of ours
            note = json.loads(file.read_text())
            last = os.path.basename(runner.message_hub.runtime_info.get('last_ckpt', ''))
            # Only if what replaces it is what we go on from: else it may still be needed.
            if is_resumed(runner) and note['saved'] == last:
                in_use = {os.path.basename(name) for name in self._in_use(runner)}
                for name in {os.path.basename(name) for name in note['outdated']} - in_use:
                    self._remove(self.file_backend.join_path(self.out_dir, name))
                    runner.logger.info(f'{name} is outdated since {last} was saved: removed')
        file.unlink()
