# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run programs with their output in files, and show their progress in one line."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Lines of mmengine's log, and of the progress bar of tools/robustness.py (tqdm).
EPOCH = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[.*?eta: (\S+)')
MAX_EPOCHS = re.compile(r'max_epochs\s*=\s*(\d+)')
TESTED = re.compile(r'(\d+)%\|[^\[]*\[[^<]*<([^,]+),')

# Seconds between two looks at the jobs: often enough for the eye, too rare to cost time.
POLL_INTERVAL = 0.5
# A traceback of mmengine with its message fits into so many lines.
LAST_LINES = 25


@dataclass(eq=False)
class Job:
    """One program, which computes with one thread.

    A second thread wins little on so small a model, is slower than one beside another busy
    program, and rounds otherwise: results would depend on the number of cores.

    Args:
        name (str): Name on the screen.
        command (Callable[[], list[str]]): Returns the program and its arguments. It is called
            when the job starts, since they may name files that other jobs write.
        log (Path): File for its output.
        folder (Path): Where it runs.
        after (Sequence[Job]): Jobs that must have succeeded before. Defaults to none.

    Attributes:
        seconds (float): What it took, once it has ended.
    """

    name: str
    command: Callable[[], list[str]]
    log: Path
    folder: Path
    after: Sequence['Job'] = ()
    seconds: float = field(default=0.0, init=False)
    _process: subprocess.Popen | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the program."""
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
        """Return the exit status, None while the program runs."""
        status = self._process.poll()
        if status is None:
            self.seconds = time.monotonic() - self._started
        return status

    @property
    def ready(self) -> bool:
        """Whether all jobs before it have succeeded."""
        return all(job.succeeded for job in self.after)

    @property
    def succeeded(self) -> bool:
        """Whether the program has ended with status 0."""
        return self._process is not None and self._process.poll() == 0

    def stop(self) -> None:
        """End the program if it runs, and wait until it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def progress(self) -> str:
        """Return a few words on how far it is, read from its log."""
        text = self.log.read_text(errors='replace')
        epochs, total = EPOCH.findall(text), MAX_EPOCHS.search(text)
        if epochs:
            (epoch, left), of = epochs[-1], f'/{total[1]}' if total else ''
            return f'{self.name}: epoch {epoch}{of}, {left.removeprefix("0:")} left'
        tested = TESTED.findall(text)
        # tqdm writes "?" for the time to go before the first image is done.
        if tested and '?' not in tested[-1][1]:
            return f'{self.name}: {tested[-1][0]} %, {tested[-1][1]} left'
        return f'{self.name}: starting'

    def exit_with_log(self, status: int) -> None:
        """Exit with the last lines of the job's log.

        Args:
            status (int): The job's exit status, for the message.

        Raises:
            SystemExit: Always.
        """
        lines = self.log.read_text(errors='replace').splitlines()[-LAST_LINES:]
        sys.exit(
            '\n'.join(['', *lines, '', f'{self.name} failed (exit status {status}).'])
            + f' Its last lines are above, all of them in {self.log}'
        )


def run_jobs(
    jobs: Sequence[Job], at_once: int, on_end: Callable[[Job], None] = lambda job: None
) -> None:
    """Run jobs, some at once, and show their progress.

    Args:
        jobs (Sequence[Job]): The jobs, started in this order; one that still waits for another
            lets those behind it pass.
        at_once (int): How many may run at a time.
        on_end (Callable[[Job], None]): Called with each job that was started, as soon as it has
            ended: done, failed or stopped. Defaults to a function that does nothing.

    Raises:
        SystemExit: If one fails; the others are stopped.
    """
    waiting, running = list(jobs), []
    line = StatusLine()
    try:
        while waiting or running:
            for job in [job for job in waiting if job.ready][: at_once - len(running)]:
                waiting.remove(job)
                job.start()
                running.append(job)
            time.sleep(POLL_INTERVAL)
            to_come = [f'{len(waiting)} to come'] if waiting else []
            line.show('  |  '.join([job.progress() for job in running] + to_come))
            for job in list(running):
                status = job.poll()
                if status is None:
                    continue
                running.remove(job)
                # Before the exit below, so that the time of a failed job counts as well.
                on_end(job)
                if status:
                    job.exit_with_log(status)
                line.end(f'{job.name}: done in {job.seconds:.0f} s, log: {job.log}')
    finally:
        for job in running:
            job.stop()
            on_end(job)


class StatusLine:
    """A line that is overwritten on a terminal, and printed now and then into a file.

    Args:
        interval (float): Least seconds between two lines in a file. Defaults to 20.
    """

    def __init__(self, interval: float = 20.0) -> None:
        self._terminal = sys.stdout.isatty()
        self._interval = interval
        self._last = 0.0
        self._text = ''

    def show(self, text: str) -> None:
        """Show a text that the next one replaces."""
        if text == self._text:
            return
        if self._terminal:
            # \r goes to the start of the line, ESC[K clears what is left of a longer text.
            print(f'\r    {text}\x1b[K', end='', flush=True)
        elif time.monotonic() - self._last < self._interval:
            return
        else:
            print(f'    {text}', flush=True)
        self._text, self._last = text, time.monotonic()

    def end(self, text: str) -> None:
        """Show a text that stays."""
        print(f'\r    {text}\x1b[K' if self._terminal else f'    {text}', flush=True)
