# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Train, prune and test a small detector on corrupted images, on a CPU, in some 25 minutes.

Builds the small VOC, trains a dense detector, prunes it to half of its parameters with AdaSAP
and, as a control, in the same way without perturbations, and tests all clean and under the
corruptions of the benchmark. AdaSAP-L is AdaSAP at 0.6 of the network's time in onnxruntime on
this machine, which is measured first, and AdaSAP-L-Taylor is the same with channels chosen as in
AdaSAP; without onnx and onnxruntime both are left out. Everything goes through mmdet's train.py,
adasap latency, tools/robustness.py and configs/demo.

A second call goes on where the first one stopped.
"""

import argparse
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from demo_parts.program import ROOT, make_parser, quietly, run_program, say, seed_option
from demo_parts.steps import Plan, Step, Training, checkpoint
from demo_parts.tables import format_detection_table

CONFIGS = ROOT / 'configs' / 'demo'
DATA = ROOT / 'data' / 'tiny_voc'


class Arm(NamedTuple):
    """A column of the table.

    Attributes:
        name (str): Its heading.
        config (str): What the name of its config begins with.
        bases (tuple[str, ...]): The configs that this one builds on.
        options (tuple[str, ...]): For --cfg-options.
        needs_times (bool): Whether it prunes for a time.
    """

    name: str
    config: str
    bases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs_times: bool = False


TAYLOR = 'default_hooks.adasap.importance.type=TaylorImportance'
# By the folder of its training.
ARMS = {
    'dense': Arm('dense', 'dense'),
    'control': Arm('control', 'control', ('dense', 'adasap')),
    'adasap': Arm('AdaSAP', 'adasap', ('dense',)),
    'adasap-l': Arm('AdaSAP-L', 'adasap-l', ('dense', 'adasap'), needs_times=True),
    'adasap-l-taylor': Arm(
        'AdaSAP-L-Taylor', 'adasap-l', ('dense', 'adasap'), (TAYLOR,), needs_times=True
    ),
}
# What the network is written and timed with.
TIMING = ('onnx', 'onnxruntime')
# One corruption or two of each group: noise, blur, weather, digital.
PICTURED = ['gaussian_noise', 'motion_blur', 'fog', 'contrast', 'jpeg_compression']
# The middle one of five. Fog and contrast leave every model near 0 even there.
SEVERITY = 3
# The set is the same whatever the seed: that is the training's.
DATA_SEED = 0
# As the test pipeline of the configs makes them.
IMAGE_SIZE = 128


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__, 'demo')
    parser.add_argument(
        '--seed', type=seed_option, default=0, help='of the training, 0 or more (default: 0)'
    )
    return parser.parse_args()


def config(name: str) -> Path:
    return CONFIGS / f'{name}_yolox_tiny-voc.py'


class Demo:
    """The steps of the demo, in order; each has a folder of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seed = args.seed
        self.out = args.out / f'seed{args.seed}'
        packages = ('onedl-mmdetection', 'mmdet', 'onnxruntime')
        self.plan = Plan('train', packages, args.jobs, args.force)
        self.missing = [name for name in TIMING if find_spec(name) is None]
        self.arms = {
            key: arm for key, arm in ARMS.items() if not (arm.needs_times and self.missing)
        }
        self.trained: dict[str, Step] = {}
        self.table = self.times = None

    def run(self) -> None:
        say(f'results and logs go to {self.out}')
        if self.missing:
            say(
                f'without {" and ".join(self.missing)} there is no AdaSAP-L, nor '
                'its control, and no time in onnxruntime: pip install -r requirements/export.txt'
            )
        say('[1/5] the small VOC')
        self.make_data()
        say('[2/5] train the dense detector, and time its layers')
        self.add_training('dense')
        self.add_table()
        self.plan.run()
        say('[3/5] prune it with AdaSAP, and without perturbations as the control')
        for arm in ('adasap', 'adasap-l', 'adasap-l-taylor', 'control'):  # the longest first
            if arm in self.arms:
                self.add_training(arm)
        self.plan.run()
        say('[4/5] test all of them, clean and under corruptions')
        self.add_test()
        self.plan.run()
        self.add_times()  # with nothing beside it
        self.plan.run()
        say('[5/5] table and picture')
        self.report(self.collect())

    def make_data(self) -> None:
        command = ['demo/make_tiny_voc.py', '--out', str(DATA), '--seed', str(DATA_SEED)]
        self.data_key = self.plan.make_set(command, self.out / 'data.log', DATA / 'VOCdevkit')

    def add_table(self) -> None:
        """Plan the timing of the layers, which needs no weights."""
        if self.missing:
            return
        program = ['-m', 'mmdet_adasap', 'latency', str(config('dense'))]
        self.table = self.plan.add_program(
            'table',
            self.out / 'table',
            lambda folder: [*program, '--out', str(folder / 'table.json')],
            [config('dense')],
        )

    def add_training(self, key: str) -> None:
        arm = self.arms[key]
        options = [*arm.options]
        if arm.needs_times:
            table = self.table.folder / 'table.json'
            options.append(f'default_hooks.adasap.target.table={table}')
        self.trained[key] = self.plan.add_training(
            Training(
                name=arm.name,
                folder=self.out / key,
                config=config(arm.config),
                bases=[config(base) for base in arm.bases],
                seed=self.seed,
                start=None if key == 'dense' else self.trained['dense'],
                options=options,
                needs=[self.table] if arm.needs_times else [],
            )
        )

    def add_times(self) -> None:
        """Plan the timing of the networks, slim ones beside the dense one."""
        if self.missing:
            return
        program = ROOT / 'tools' / 'demo' / 'time_networks.py'

        def command(folder: Path) -> list[str]:
            models = [
                f'{arm.name}={checkpoint(self.trained[key])}' for key, arm in self.arms.items()
            ]
            options = ['--image-size', str(IMAGE_SIZE), '--out', str(folder / 'times.json')]
            return [str(program), str(config('dense')), *models, *options]

        steps = [*self.trained.values()]
        self.times = self.plan.add_program(
            'times', self.out / 'times', command, [program, config('dense')], steps
        )

    def add_test(self) -> None:
        models = {arm.name: self.trained[key] for key, arm in self.arms.items()}
        # The test itself is one process, so that with --jobs 1 it loads the images, too.
        workers = self.plan.jobs - 1
        self.tested = self.plan.add_test(
            'test', self.out / 'robustness', config('dense'), models, [SEVERITY], workers
        )

    def collect(self) -> dict:
        """Return what results.json holds: everything that the table shows, unrounded."""
        found = json.loads((self.tested.folder / 'results.json').read_text())
        times = json.loads((self.times.folder / 'times.json').read_text()) if self.times else {}
        models = {}
        for key, arm in self.arms.items():
            model = found['models'][arm.name]
            models[arm.name] = {
                **model['cost'],
                **({'network_time': times[arm.name]} if times else {}),
                'train_seconds': self.trained[key].seconds,
                'mAP': model['clean'],
                'corrupted': {
                    corruption: {SEVERITY: row[str(SEVERITY)]}
                    for corruption, row in model['cells'].items()
                },
                'mPC': model['mPC'],
                'rPC': model['rPC'],
                'ci95': model['ci95'],
                'config': str(config(arm.config).relative_to(ROOT)),
                'options': list(arm.options),
                'checkpoint': str(checkpoint(self.trained[key]).relative_to(self.out)),
            }
        return {
            'seed': self.seed,
            'data': {'seed': DATA_SEED, 'key': self.data_key},
            'metric': 'pascal_voc/mAP (11 points, IoU 0.5), a fraction',
            'severity': SEVERITY,
            'corruptions': found['protocol']['corruptions'],
            'training_time': 'of train.py, its start and validation included',
            'latency': 'one image, batch 1, 1 thread; preprocessing, network and NMS',
            'network_time': 'of the dense network, without decoding and NMS, in onnxruntime',
            'threads': 1,
            'environment': self.plan.environment,
            'models': models,
        }

    def report(self, results: dict) -> None:
        with quietly():  # mmdet takes its time, and the other steps run in programs of their own
            from demo_parts.pictures import clean_test_set, draw_detections
            from mmdet_adasap.fileio import write_atomically

        picture, table = self.out / 'demo.png', self.out / 'results.json'
        shown = [name for name in PICTURED if name in results['corruptions']]
        with quietly():
            drawn = io.BytesIO()
            dataset = clean_test_set(config('dense'))
            draw_detections(dataset, self.tested.folder, shown, SEVERITY).save(drawn, 'PNG')
        write_atomically(picture, drawn.getvalue())
        write_atomically(table, json.dumps(results, indent=2) + '\n')
        say(f'    {picture}\n    {table}\n    {self.tested.folder / "results.json"}\n')
        say(format_detection_table(results['models'], results['corruptions'], SEVERITY))


if __name__ == '__main__':
    arguments = parse_args()
    run_program('demo', lambda: Demo(arguments).run())
