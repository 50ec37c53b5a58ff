# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run programs with their output in files, and one line on the screen that says how far."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EPOCH = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[.*?eta: (\S+)')
MAX_EPOCHS = re.compile(r'max_epochs\s*=\s*(\d+)')
TESTED = re.compile(r'(\d+)%\|[^\[]*\[[^<]*<([^,]+),')


@dataclass(eq=False)
class Job:
    """One program, which computes with one thread.

    A second thread wins little on so small a model, is slower than one beside another busy
    program, and rounds otherwise: results would depend on the number of cores.

    Args:
        name (str): What to call it on the screen.
        command (Callable[[], list[str]]): Says the program and its arguments when it is to start.
        log (Path): File for all that it says.
        folder (Path): Where it runs.
        after (Sequence[Job]): What has to be done before. Defaults to nothing.
    """

    name: str
    command: Callable[[], list[str]]
    log: Path
    folder: Path
    after: Sequence['Job'] = ()
    seconds: float = field(default=0.0, init=False)
    _process: subprocess.Popen | None = field(default=None, init=False)

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
        self._started = time.monotonic()
        with self.log.open('wb') as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        status = self._process.poll()
        if status is None:
            self.seconds = time.monotonic() - self._started
        return status

    @property
    def ready(self) -> bool:
        return all(job.succeeded for job in self.after)

    @property
    def succeeded(self) -> bool:
        return self._process is not None and self._process.poll() == 0

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def progress(self) -> str:
        """How far it is, by its log."""
        text = self.log.read_text(errors='replace')
        epochs, total = EPOCH.findall(text), MAX_EPOCHS.search(text)
        if epochs:
            (epoch, left), of = epochs[-1], f'/{total[1]}' if total else ''
            return f'{self.name}: epoch {epoch}{of}, {left.removeprefix("0:")} left'
        tested = TESTED.findall(text)
        if tested and '?' not in tested[-1][1]:
            return f'{self.name}: {tested[-1][0]} %, {tested[-1][1]} left'
        return f'{self.name}: starting'

    def fail(self, status: int) -> None:
        """End this program with what the job said last."""
        lines = self.log.read_text(errors='replace').splitlines()[-25:]
        sys.exit(
            '\n'.join(['', *lines, '', f'{self.name} failed (exit status {status}).'])
            + f' Its last lines are above, all of them in {self.log}'
        )


def run_jobs(
    jobs: Sequence[Job], at_once: int, ended: Callable[[Job], None] = lambda job: None
) -> None:
    """Run jobs, some at once, and show how far they are.

    Args:
        jobs (Sequence[Job]): The jobs, started in this order, but for those that still wait for
            another one of them.
        at_once (int): How many may run at a time.
        ended (Callable[[Job], None]): Told of each job that was started once it runs no more:
            done, failed or stopped. Defaults to nobody.

    Raises:
        SystemExit: If one fails; the others are stopped.
    """
    waiting, running = list(jobs), []
    screen = Screen()
    try:
        while waiting or running:
            for job in [job for job in waiting if job.ready][: at_once - len(running)]:
                waiting.remove(job)
                job.start()
                running.append(job)
            time.sleep(0.5)
            to_come = [f'{len(waiting)} to come'] if waiting else []
            screen.show('  |  '.join([job.progress() for job in running] + to_come))
            for job in list(running):
                status = job.poll()
                if status is None:
                    continue
                running.remove(job)
                ended(job)
                if status:
                    job.fail(status)
                screen.end(f'{job.name}: done in {job.seconds:.0f} s, log: {job.log}')
    finally:
        for job in running:
            job.stop()
            ended(job)


class Screen:
    """A line that is written over on a terminal, and repeated now and then in a file."""

    def __init__(self, every: float = 20.0) -> None:
        self._terminal = sys.stdout.isatty()
        self._every = every
        self._last = 0.0
        self._text = ''

    def show(self, text: str) -> None:
        if text == self._text:
            return
        if self._terminal:
            print(f'\r    {text}\x1b[K', end='', flush=True)
        elif time.monotonic() - self._last < self._every:
            return
        else:
            print(f'    {text}', flush=True)
        self._text, self._last = text, time.monotonic()

    def end(self, text: str) -> None:
        print(f'\r    {text}\x1b[K' if self._terminal else f'    {text}', flush=True)
