# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Train, prune and test a small detector on corrupted images, on a CPU, in some 13 minutes.

Builds the small VOC, trains a dense detector, prunes it to half of its parameters with AdaSAP
and, as a control, in the same way without perturbations, and tests all three clean and under
the corruptions of the benchmark. Everything goes through mmdet's train.py, tools/robustness.py
and configs/demo.

A second call goes on where the first one stopped.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from demo_parts.jobs import Job, run_jobs
from demo_parts.steps import Step, fingerprint
from demo_parts.table import format_table

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs' / 'demo'
DATA = ROOT / 'data' / 'tiny_voc'
ARMS = {'dense': 'dense', 'control': 'control', 'adasap': 'AdaSAP'}
PICTURED = ['gaussian_noise', 'motion_blur', 'fog', 'contrast', 'jpeg_compression']
SEVERITY = 3
# The set is the same whatever the seed: that is the training's.
DATA_SEED = 0


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise ValueError(text)
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--seed', type=seed, default=0, help='of the training, 0 or more (default: 0)'
    )
    parser.add_argument(
        '--out',
        type=lambda path: Path(path).resolve(),
        default=ROOT / 'work_dirs' / 'demo',
        help='default: work_dirs/demo',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        choices=(1, 2),
        default=min(2, len(os.sched_getaffinity(0))),
        help='programs to run at once, of one thread each (default: 2, or 1 on a single core)',
    )
    parser.add_argument('--force', action='store_true', help='redo finished steps')
    return parser.parse_args()


def say(text: str) -> None:
    print(text, flush=True)


def mmdet_tool(name: str) -> str:
    command = [sys.executable, '-m', 'mmdet_adasap.env', '--tool', name]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr.strip())
    return found.stdout.strip()


def config(arm: str) -> Path:
    return CONFIGS / f'{arm}_yolox_tiny-voc.py'


def checkpoint(step: Step) -> Path | None:
    """The last checkpoint in a training's folder that is whole; None where there is none.

    A run that is killed while it saves leaves a torn file, or the name of one that is gone.
    """
    files = step.folder.glob('epoch_*.pth')
    for file in sorted(files, key=lambda path: int(path.stem.split('_')[1]), reverse=True):
        if zipfile.is_zipfile(file):
            return file
    return None


class Demo:
    """The steps, in order; each leaves its files in a folder of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seed, self.jobs, self.force = args.seed, args.jobs, args.force
        self.out = args.out / f'seed{args.seed}'
        self.trained: dict[str, Step] = {}

    def run(self) -> None:
        say(f'results and logs go to {self.out}')
        say('[1/5] the small VOC')
        self.make_data()
        say('[2/5] train the dense detector')
        self.work(self.training('dense'))
        say('[3/5] prune it with AdaSAP, and without perturbations as the control')
        self.work([*self.training('adasap'), *self.training('control')])
        say('[4/5] test all three, clean and under corruptions')
        self.work(self.testing())
        say('[5/5] table and picture')
        self.report(self.collect())

    def make_data(self) -> None:
        command = [sys.executable, str(ROOT / 'tools' / 'make_tiny_voc.py')]
        command += ['--out', str(DATA), '--seed', str(DATA_SEED)]
        run_jobs([Job('data', command, self.out / 'data.log', ROOT)], 1)
        self.data_key = fingerprint(
            files=sorted(p for p in (DATA / 'VOCdevkit').rglob('*') if p.is_file())
        )

    def training(self, arm: str) -> list[tuple[Step, Job]]:
        """What is left to do of the training of one arm: one job, or none."""
        # The config of AdaSAP builds on the dense one, that of the control on AdaSAP's.
        used = [config(name) for name in ('dense', 'adasap', 'control')]
        used = used[: 1 + used.index(config(arm))]
        start = '' if arm == 'dense' else self.trained['dense'].key
        code = sorted((ROOT / 'mmdet_adasap').rglob('*.py'))
        key = fingerprint(self.seed, self.data_key, start, environment(), files=[*used, *code])
        step = self.trained[arm] = Step(self.out / arm, key, self.force)
        if step.finished:
            say(f'    {ARMS[arm]}: done before, in {step.seconds:.0f} s, {step.folder}')
            return []
        command = [sys.executable, mmdet_tool('train'), str(config(arm))]
        command += ['--work-dir', str(step.folder)]
        options = [f'randomness.seed={self.seed}']
        if checkpoint(step) is not None:
            say(f'    {ARMS[arm]}: goes on from {checkpoint(step)}')
            command += ['--resume', str(checkpoint(step))]
        elif arm != 'dense':
            options.append(f'load_from={checkpoint(self.trained["dense"])}')
        log = step.folder / 'train.log'
        command += ['--cfg-options', *options]
        return [(step, Job(ARMS[arm], command, log, ROOT))]

    def testing(self) -> list[tuple[Step, Job]]:
        """What is left to do of the test of all three: one job, or none."""
        trained = [self.trained[arm].key for arm in ARMS]
        key = fingerprint(trained, SEVERITY, environment())
        step = self.tested = Step(self.out / 'robustness', key, self.force)
        if step.finished:
            say(f'    tested before, {step.folder}')
            return []
        command = [sys.executable, str(ROOT / 'tools' / 'robustness.py'), str(config('dense'))]
        command += [f'{name}={checkpoint(self.trained[arm])}' for arm, name in ARMS.items()]
        command += ['--severities', str(SEVERITY), '--workers', str(self.jobs - 1)]
        command += ['--out', str(step.folder)]
        return [(step, Job('test', command, step.folder / 'test.log', ROOT))]

    def work(self, steps: list[tuple[Step, Job]]) -> None:
        """Do jobs, as many at once as there are cores to use, and write down what came of them."""
        try:
            run_jobs([job for _, job in steps], self.jobs)
        finally:
            # Also when interrupted: the time counts, and the next call resumes.
            for step, job in steps:
                step.add(job.seconds, finished=job.succeeded)

    def collect(self) -> dict:
        """Everything that the table shows, unrounded."""
        found = json.loads((self.tested.folder / 'results.json').read_text())
        models = {}
        for arm, name in ARMS.items():
            model = found['models'][name]
            models[name] = {
                **model['cost'],
                'train_seconds': self.trained[arm].seconds,
                'mAP': model['clean'],
                'corrupted': {
                    corruption: {SEVERITY: row[str(SEVERITY)]}
                    for corruption, row in model['cells'].items()
                },
                'mPC': model['mPC'],
                'rPC': model['rPC'],
                'ci95': model['ci95'],
                'config': str(config(arm).relative_to(ROOT)),
                'checkpoint': str(checkpoint(self.trained[arm]).relative_to(self.out)),
            }
        return {
            'seed': self.seed,
            'data': {'seed': DATA_SEED, 'key': self.data_key},
            'metric': 'pascal_voc/mAP (11 points, IoU 0.5), a fraction',
            'severity': SEVERITY,
            'corruptions': found['protocol']['corruptions'],
            'training_time': 'of train.py, its start and validation included',
            'latency': 'one image, batch 1, 1 thread; preprocessing, network and NMS',
            'threads': 1,
            'environment': environment(),
            'models': models,
        }

    def report(self, results: dict) -> None:
        with quietly():  # mmdet takes its time, and the other steps run in programs of their own
            from demo_parts.picture import draw_picture, test_set

            from mmdet_adasap.files import write_atomically

        picture, table = self.out / 'demo.png', self.out / 'results.json'
        shown = [name for name in PICTURED if name in results['corruptions']]
        with quietly():
            drawn = io.BytesIO()
            dataset = test_set(config('dense'))
            draw_picture(dataset, self.tested.folder, shown, SEVERITY).save(drawn, 'PNG')
        write_atomically(picture, drawn.getvalue())
        write_atomically(table, json.dumps(results, indent=2) + '\n')
        say(f'    {picture}\n    {table}\n    {self.tested.folder / "results.json"}\n')
        say(format_table(results['models'], results['corruptions'], SEVERITY))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what mmdet prints and warns of while it is imported and built off the screen."""
    with (
        open(os.devnull, 'w') as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        yield


def environment() -> dict[str, str]:
    """What the results may depend on."""
    names = ('torch', 'numpy', 'opencv-python-headless', 'pillow', 'onedl-mmdetection', 'mmdet')
    versions = {'python': platform.python_version(), 'machine': platform.machine()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


if __name__ == '__main__':
    arguments = parse_args()
    # As an interrupt does: end what was started, and note the time that it took.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The paths in the configs are relative to the checkout.
    os.chdir(ROOT)
    try:
        Demo(arguments).run()
    except KeyboardInterrupt:
        sys.exit('\nInterrupted. The same command goes on from here.')
    except OSError as error:
        sys.exit(f'demo: {error}')
