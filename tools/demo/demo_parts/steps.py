# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The steps of a demo: make a set, train, test. A second call goes on where the first stopped."""

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .jobs import Job, run_jobs
from .program import ROOT, find_tool, installed_versions, quietly, say


def fingerprint(*parts: object, files: Iterable[Path] = ()) -> str:
    """Return a key that changes when a part, or the content of a file, changes.

    Args:
        parts (object): Anything whose ``repr`` says all of it.
        files (Iterable[Path]): The files. Defaults to none.
    """
    digest = hashlib.sha256(repr(parts).encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Step:
    """One step, its folder, and in it the note whether it is finished.

    Args:
        folder (Path): For its files alone.
        key (str): Fingerprint of all that the step depends on. Files made under another key are
            removed.
        force (bool): Whether to remove existing files in any case. Defaults to False.

    Attributes:
        finished (bool): Whether nothing is left to do.
        seconds (float): Time spent, over all calls that worked on it.
    """

    def __init__(self, folder: Path, key: str, force: bool = False) -> None:
        self.folder = folder
        self.key = key
        self._file = folder / 'step.json'
        state = self._read()
        if state and (force or state['key'] != key):
            shutil.rmtree(folder)
            state = {}
        self.finished: bool = state.get('finished', False)
        self.seconds: float = state.get('seconds', 0.0)
        self._write()

    def add(self, seconds: float, finished: bool) -> None:
        """Note time spent, and whether the step is finished."""
        self.seconds += seconds
        self.finished = finished
        self._write()

    def _read(self) -> dict:
        if not self._file.exists():
            return {}
        try:
            return json.loads(self._file.read_text())
        except json.JSONDecodeError:
            # Torn by a crash. No key is None, so the step is redone.
            return {'key': None}

    def _write(self) -> None:
        with quietly():  # the import takes seconds, for which --help need not wait
            from mmdet_adasap.fileio import write_atomically

        self.folder.mkdir(parents=True, exist_ok=True)
        state = {'key': self.key, 'finished': self.finished, 'seconds': self.seconds}
        write_atomically(self._file, json.dumps(state))


def checkpoint(step: Step) -> Path | None:
    """Return the last whole checkpoint in a training's folder, None if there is none.

    A run that is killed while it saves leaves a torn file, or the name of one that is gone.
    torch.save writes a zip archive, whose directory comes last, so a torn file is no zip file.
    """
    files = step.folder.glob('epoch_*.pth')
    for file in sorted(files, key=lambda path: int(path.stem.split('_')[1]), reverse=True):
        if zipfile.is_zipfile(file):
            return file
    return None


@dataclass
class Training:
    """A run of train.py.

    Args:
        name (str): Name on the screen.
        folder (Path): For its files alone.
        config (Path): The config.
        bases (Sequence[Path]): The files that the config builds on.
        seed (int): Seed of the training.
        start (Step, optional): The training whose weights it starts from. Defaults to None:
            from random ones.
        options (Sequence[str]): For --cfg-options. Defaults to none.
        needs (Sequence[Step]): Other steps whose files it reads. Defaults to none.
    """

    name: str
    folder: Path
    config: Path
    bases: Sequence[Path]
    seed: int
    start: Step | None = None
    options: Sequence[str] = ()
    needs: Sequence[Step] = ()


class Plan:
    """Steps, of which those not yet finished are run, as many at once as there are cores.

    Args:
        train (str): The tool that trains, as ``mmpretrain::train``.
        packages (Sequence[str]): Distributions that the results depend on, beside torch's.
        jobs (int): Programs to run at once.
        force (bool): Whether to redo what is finished.
        follow_code (bool): Whether to redo also what another version of the package has made.
            Defaults to True.

    Attributes:
        environment (dict[str, str]): Versions that the results may depend on.
        jobs (int): As given.
    """

    def __init__(
        self,
        train: str,
        packages: Sequence[str],
        jobs: int,
        force: bool,
        follow_code: bool = True,
    ) -> None:
        self.environment = installed_versions(packages)
        self.jobs, self._force = jobs, force
        self._train_tool = find_tool(train)
        # Any change of the package may change what is trained, so all of its files are in the key.
        self._code = sorted((ROOT / 'mmdet_adasap').rglob('*.py')) if follow_code else []
        self._data_key = ''
        self._unfinished: dict[Step, Job] = {}

    def make_set(self, command: Sequence[str], log: Path, folder: Path) -> str:
        """Make the images at once, and return a key that changes when they do.

        Args:
            command (Sequence[str]): A program of tools/ and its arguments.
            log (Path): File for its output.
            folder (Path): Where the images are.
        """
        tool, *arguments = command
        run_jobs([Job('data', lambda: [*_run_tool(tool), *arguments], log, ROOT)], 1)
        self._data_key = fingerprint(files=sorted(p for p in folder.rglob('*') if p.is_file()))
        return self._data_key

    def use_set(self, key: str) -> None:
        """Go by a key for a set that is not made here."""
        self._data_key = key

    def add_training(self, run: Training) -> Step:
        """Plan a training and return its step."""
        start = run.start.key if run.start else ''
        needs = [step.key for step in run.needs]
        parts = (run.seed, list(run.options), self._data_key, start, needs, self.environment)
        key = fingerprint(*parts, files=[*run.bases, run.config, *self._code])
        step = Step(run.folder, key, self._force)
        if step.finished and checkpoint(step) is None:
            say(f'    {run.name}: its checkpoint is gone or torn, so it is trained again')
            step = Step(run.folder, key, force=True)
        if checkpoint(step) is not None and not step.finished:
            say(f'    {run.name}: goes on from {checkpoint(step)}')

        def command() -> list[str]:
            found = [sys.executable, self._train_tool, str(run.config)]
            found += ['--work-dir', str(step.folder)]
            options = [f'randomness.seed={run.seed}', *run.options]
            if checkpoint(step) is not None:
                found += ['--resume', str(checkpoint(step))]
            elif run.start:
                options.append(f'load_from={_last_checkpoint(run.start)}')
            return [*found, '--cfg-options', *options]

        before = [*run.needs, *([run.start] if run.start else [])]
        self._add(step, run.name, command, 'train.log', before)
        return step

    def add_program(
        self,
        name: str,
        folder: Path,
        command: Callable[[Path], list[str]],
        files: Sequence[Path],
        after: Sequence[Step] = (),
    ) -> Step:
        """Plan a program that writes into a folder, and return its step.

        Args:
            name (str): Name on the screen.
            folder (Path): For its files alone.
            command (Callable[[Path], list[str]]): Gets the folder when the program starts;
                returns the arguments of Python.
            files (Sequence[Path]): What its results depend on, beside the package.
            after (Sequence[Step]): Steps whose files it reads. Defaults to none.
        """
        keys = [step.key for step in after]
        key = fingerprint(keys, self.environment, files=[*files, *self._code])
        step = Step(folder, key, self._force)
        self._add(step, name, lambda: [sys.executable, *command(folder)], f'{name}.log', after)
        return step

    def add_test(
        self,
        name: str,
        folder: Path,
        config: Path,
        models: Mapping[str, Step],
        severities: Sequence[int],
        workers: int,
    ) -> Step:
        """Plan a test of models under corruptions by tools/robustness.py, and return its step.

        Args:
            name (str): Name on the screen.
            folder (Path): For its files alone.
            config (Path): The unpruned config.
            models (Mapping[str, Step]): Their trainings, by their names in the results.
            severities (Sequence[int]): Of the corruptions.
            workers (int): Processes that load and corrupt images.
        """
        keys = {model: step.key for model, step in models.items()}
        key = fingerprint(keys, list(severities), self.environment)
        step = Step(folder, key, self._force)

        def command() -> list[str]:
            found = [*_run_tool('robustness.py'), str(config)]
            found += [f'{model}={_last_checkpoint(trained)}' for model, trained in models.items()]
            found += ['--severities', *map(str, severities), '--workers', str(workers)]
            # The README's figures are of a CPU; a GPU would round otherwise.
            found += ['--device', 'cpu']
            return [*found, '--out', str(step.folder)]

        self._add(step, name, command, 'test.log', models.values())
        return step

    def run(self) -> None:
        """Run the steps that are not finished, in the order of the plan where possible."""
        steps = {job: step for step, job in self._unfinished.items()}
        self._unfinished = {}
        # Of a step that is interrupted the time counts as well, and the next call goes on.
        run_jobs(
            list(steps),
            self.jobs,
            lambda job: steps[job].add(job.seconds, finished=job.succeeded),
        )

    def _add(
        self,
        step: Step,
        name: str,
        command: Callable[[], list[str]],
        log: str,
        after: Iterable[Step],
    ) -> None:
        if step.finished:
            say(f'    {name}: done before, in {step.seconds:.0f} s, {step.folder}')
            return
        before = [self._unfinished[other] for other in after if other in self._unfinished]
        self._unfinished[step] = Job(name, command, step.folder / log, ROOT, before)


def _last_checkpoint(step: Step) -> Path:
    """Return the checkpoint of a finished training; raise FileNotFoundError if it is gone."""
    found = checkpoint(step)
    if found is None:
        raise FileNotFoundError(f'{step.folder} has no whole epoch_*.pth any more; run it again')
    return found


def _run_tool(tool: str) -> list[str]:
    return [sys.executable, str(ROOT / 'tools' / tool)]
