# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The kinds of steps that a demo has: make a set, train, test. Each goes on where it stopped."""

import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .environment import environment, find_tool
from .jobs import Job, run_jobs
from .program import ROOT, say
from .steps import Step, fingerprint


def checkpoint(step: Step) -> Path | None:
    """The last checkpoint in a training's folder that is whole; None where there is none.

    A run that is killed while it saves leaves a torn file, or the name of one that is gone.
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
        name (str): What to call it on the screen.
        folder (Path): For its files alone.
        config (Path): What is trained.
        bases (Sequence[Path]): The files that the config builds on.
        seed (int): Seed of the training.
        start (Step, optional): The training whose weights it starts from. Defaults to None:
            from random ones.
        options (Sequence[str]): For --cfg-options. Defaults to none.
    """

    name: str
    folder: Path
    config: Path
    bases: Sequence[Path]
    seed: int
    start: Step | None = None
    options: Sequence[str] = ()


class Work:
    """Plans steps, and does what is left of them: as many at once as there are cores to use.

    Args:
        train (str): The tool that trains, as ``mmpretrain::train``.
        packages (Sequence[str]): Distributions that the results depend on, beside torch's.
        jobs (int): Programs to run at once.
        force (bool): Whether to redo what is finished.
    """

    def __init__(self, train: str, packages: Sequence[str], jobs: int, force: bool) -> None:
        self.environment = environment(packages)
        self.jobs, self._force = jobs, force
        self._train_tool = find_tool(train)
        self._data_key = ''
        self._left: dict[Step, Job] = {}

    def make_set(self, command: Sequence[str], log: Path, folder: Path) -> str:
        """Make the images, and know by a key whether they are others than before.

        Args:
            command (Sequence[str]): A tool of this project and its arguments.
            log (Path): File for what it says.
            folder (Path): Where the images are.
        """
        tool, *arguments = command
        run_jobs([Job('data', lambda: [*_python(tool), *arguments], log, ROOT)], 1)
        self._data_key = fingerprint(files=sorted(p for p in folder.rglob('*') if p.is_file()))
        return self._data_key

    def training(self, run: Training) -> Step:
        """Plan a training."""
        code = sorted((ROOT / 'mmdet_adasap').rglob('*.py'))
        start = run.start.key if run.start else ''
        parts = (run.seed, list(run.options), self._data_key, start, self.environment)
        key = fingerprint(*parts, files=[*run.bases, run.config, *code])
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
                options.append(f'load_from={_whole(run.start)}')
            return [*found, '--cfg-options', *options]

        self._plan(step, run.name, command, 'train.log', [run.start] if run.start else [])
        return step

    def testing(
        self,
        name: str,
        folder: Path,
        config: Path,
        models: Mapping[str, Step],
        severities: Sequence[int],
        workers: int,
    ) -> Step:
        """Plan the test of models under corruptions by tools/robustness.py.

        Args:
            name (str): What to call it on the screen.
            folder (Path): For its files alone.
            config (Path): The unpruned config.
            models (Mapping[str, Step]): Their trainings, by the names that the results have.
            severities (Sequence[int]): Of the corruptions.
            workers (int): Processes that load and corrupt images.
        """
        keys = {model: step.key for model, step in models.items()}
        key = fingerprint(keys, list(severities), self.environment)
        step = Step(folder, key, self._force)

        def command() -> list[str]:
            found = [*_python('robustness.py'), str(config)]
            found += [f'{model}={_whole(trained)}' for model, trained in models.items()]
            found += ['--severities', *map(str, severities), '--workers', str(workers)]
            return [*found, '--out', str(step.folder)]

        self._plan(step, name, command, 'test.log', models.values())
        return step

    def do(self) -> None:
        """Do what is planned and not yet finished, in the order of the plan where it can be."""
        steps = {job: step for step, job in self._left.items()}
        self._left = {}
        # Of a step that is interrupted the time counts as well, and the next call goes on.
        run_jobs(
            list(steps),
            self.jobs,
            lambda job: steps[job].add(job.seconds, finished=job.succeeded),
        )

    def _plan(
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
        before = [self._left[other] for other in after if other in self._left]
        self._left[step] = Job(name, command, step.folder / log, ROOT, before)


def _whole(step: Step) -> Path:
    """The checkpoint of a training that is over."""
    found = checkpoint(step)
    if found is None:
        raise FileNotFoundError(f'{step.folder} has no whole epoch_*.pth any more; run it again')
    return found


def _python(tool: str) -> list[str]:
    return [sys.executable, str(ROOT / 'tools' / tool)]
