# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The kinds of steps that a demo has: make a set, train, test. Each goes on where it stopped."""

import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .environment import environment, find_tool
from .jobs import Job, run_jobs
from .program import ROOT, say
from .steps import Step, fingerprint

Todo = list[tuple[Step, Job]]


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
    """Plans steps and does them.

    Args:
        train (str): The tool that trains, as ``mmpretrain::train``.
        packages (Sequence[str]): Distributions that the results depend on, beside torch's.
        jobs (int): Programs to run at once.
        force (bool): Whether to redo what is finished.
    """

    def __init__(self, train: str, packages: Sequence[str], jobs: int, force: bool) -> None:
        self._train = train
        self.environment = environment(packages)
        self.jobs, self._force = jobs, force
        self._data_key = ''

    def make_set(self, command: Sequence[str], log: Path, folder: Path) -> str:
        """Make the images, and know by a key whether they are others than before.

        Args:
            command (Sequence[str]): A tool of this project and its arguments.
            log (Path): File for what it says.
            folder (Path): Where the images are.
        """
        tool, *arguments = command
        run_jobs([Job('data', [*_python(tool), *arguments], log, ROOT)], 1)
        self._data_key = fingerprint(files=sorted(p for p in folder.rglob('*') if p.is_file()))
        return self._data_key

    def training(self, run: Training) -> tuple[Step, Todo]:
        """The step of a training, and what is left to do of it: one job, or none."""
        code = sorted((ROOT / 'mmdet_adasap').rglob('*.py'))
        start = run.start.key if run.start else ''
        parts = (run.seed, list(run.options), self._data_key, start, self.environment)
        key = fingerprint(*parts, files=[*run.bases, run.config, *code])
        step = Step(run.folder, key, self._force)
        if step.finished:
            say(f'    {run.name}: done before, in {step.seconds:.0f} s, {step.folder}')
            return step, []
        command = [sys.executable, find_tool(self._train), str(run.config)]
        command += ['--work-dir', str(step.folder)]
        options = [f'randomness.seed={run.seed}', *run.options]
        if checkpoint(step) is not None:
            say(f'    {run.name}: goes on from {checkpoint(step)}')
            command += ['--resume', str(checkpoint(step))]
        elif run.start:
            options.append(f'load_from={checkpoint(run.start)}')
        command += ['--cfg-options', *options]
        return step, [(step, Job(run.name, command, step.folder / 'train.log', ROOT))]

    def testing(
        self,
        name: str,
        folder: Path,
        config: Path,
        models: Mapping[str, Step],
        severities: Sequence[int],
        workers: int,
    ) -> tuple[Step, Todo]:
        """The test of models under corruptions by tools/robustness.py, and what is left of it.

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
        if step.finished:
            say(f'    {name}: done before, in {step.seconds:.0f} s, {step.folder}')
            return step, []
        command = [*_python('robustness.py'), str(config)]
        command += [f'{model}={checkpoint(trained)}' for model, trained in models.items()]
        command += ['--severities', *map(str, severities), '--workers', str(workers)]
        command += ['--out', str(step.folder)]
        return step, [(step, Job(name, command, step.folder / 'test.log', ROOT))]

    def do(self, steps: Todo) -> None:
        """Do jobs, as many at once as there are cores to use, and write down what came of them."""
        try:
            run_jobs([job for _, job in steps], self.jobs)
        finally:
            # Also when interrupted: the time counts, and the next call resumes.
            for step, job in steps:
                step.add(job.seconds, finished=job.succeeded)


def _python(tool: str) -> list[str]:
    return [sys.executable, str(ROOT / 'tools' / tool)]
