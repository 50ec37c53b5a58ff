# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Train, prune and test small classifiers on corrupted images, on a CPU, in some 9 minutes.

Makes the built-in classification set, trains a dense ResNet-18, prunes it to a half and to a
quarter of its parameters by plain SGD, by SAM and by AdaSAP, and tests all seven clean and under
the corruptions of the benchmark; all that with three seeds. Everything goes through mmpretrain's
train.py, tools/robustness.py and configs/demo. mmdet need not be installed.

A second call goes on where the first one stopped.
"""

import argparse
import io
import json
from pathlib import Path

from demo_parts.program import ROOT, make_parser, quietly, run_program, say, seed_option
from demo_parts.steps import Plan, Step, Training, checkpoint
from demo_parts.tables import ARMS, DENSE, TARGETS, format_summary, model_name, summarize

CONFIGS = ROOT / 'configs' / 'demo'
DATA = ROOT / 'data' / 'tiny_imagenet_32px'
# Images of each class. The set is the same whatever the seed: that is the training's.
SET = {'seed': 0, 'train': 240, 'val': 100, 'test': 50, 'size': 32}
SEVERITIES = [3]
PREFIXES = {DENSE: 'dense', 'SGD': 'control-plain', 'SAM': 'control-sam', 'AdaSAP': 'adasap'}


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__, 'demo_classification')
    parser.add_argument(
        '--seeds',
        type=seed_option,
        nargs='+',
        default=[0, 1, 2],
        help='of the trainings, 0 or more (default: 0 1 2)',
    )
    return parser.parse_args()


def config(arm: str) -> Path:
    return CONFIGS / f'{PREFIXES[arm]}_resnet18_tiny-imagenet.py'


def bases(arm: str) -> list[Path]:
    """Return the files that the config of an arm builds on; a change of one trains anew."""
    shared = ROOT / 'configs' / '_base_'
    return {
        DENSE: [],
        'AdaSAP': [config(DENSE)],
        'SGD': [config(DENSE), config('AdaSAP'), shared / 'control_plain.py'],
        'SAM': [config(DENSE), config('AdaSAP'), shared / 'control_sam.py'],
    }[arm]


class Demo:
    """The steps of all seeds in one plan, so that no core waits for a seed to be done."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.out = args.out
        self.seeds = list(dict.fromkeys(args.seeds))
        packages = ('onedl-mmpretrain', 'mmpretrain')
        self.plan = Plan('mmpretrain::train', packages, args.jobs, args.force)
        self.trained: dict[tuple[int, str], Step] = {}
        self.tested: dict[int, Step] = {}

    def run(self) -> None:
        say(f'results and logs go to {self.out}')
        say('[1/3] the small classification set')
        self.make_data()
        seeds, sizes = ', '.join(map(str, self.seeds)), ' and '.join(map(str, TARGETS))
        say(f'[2/3] train dense classifiers, seeds {seeds}; prune them to {sizes} of their')
        say('      parameters; test all, clean and under corruptions')
        self.add_steps()
        self.plan.run()
        say('[3/3] table and picture')
        self.report(self.collect())

    def make_data(self) -> None:
        options = [text for name, value in SET.items() for text in (f'--{name}', str(value))]
        command = ['demo/make_tiny_imagenet.py', '--out', str(DATA), *options]
        self.data_key = self.plan.make_set(command, self.out / 'data.log', DATA)

    def add_steps(self) -> None:
        """Plan all steps, in an order that leaves two tests for the end, one for each core."""
        for seed in self.seeds:
            self.add_training(seed, DENSE, DENSE)
        for before, seed in zip([None, *self.seeds], self.seeds, strict=False):
            self.add_pruning(seed)
            if before is not None:
                self.add_test(before)
        self.add_test(self.seeds[-1])

    def add_pruning(self, seed: int) -> None:
        for target in TARGETS:
            for arm in ARMS:
                self.add_training(
                    seed,
                    model_name(arm, target),
                    arm,
                    start=self.trained[seed, DENSE],
                    options=[f'default_hooks.adasap.target.params={target}'],
                )

    def add_training(self, seed: int, model: str, arm: str, **settings: object) -> None:
        self.trained[seed, model] = self.plan.add_training(
            Training(
                name=f'{model}, seed {seed}',
                folder=self.out / f'seed{seed}' / model.lower(),
                config=config(arm),
                bases=bases(arm),
                seed=seed,
                **settings,
            )
        )

    def add_test(self, seed: int) -> None:
        models = {model: step for (of, model), step in self.trained.items() if of == seed}
        self.tested[seed] = self.plan.add_test(
            f'test, seed {seed}',
            self.out / f'seed{seed}' / 'robustness',
            config(DENSE),
            models,
            SEVERITIES,
            workers=0,  # the seeds are tested beside one another
        )

    def collect(self) -> dict:
        """Return what results.json holds: everything that the table shows, unrounded."""
        found = {
            seed: json.loads((step.folder / 'results.json').read_text())
            for seed, step in self.tested.items()
        }
        return {
            'data': {**SET, 'key': self.data_key},
            'metric': 'accuracy/top1, a fraction',
            'corruptions': found[self.seeds[0]]['protocol']['corruptions'],
            'severities': SEVERITIES,
            'training_time': 'of train.py, its start and validation included',
            'environment': self.plan.environment,
            'checkpoints': {
                str(seed): {
                    model: str(checkpoint(step).relative_to(self.out))
                    for (of, model), step in self.trained.items()
                    if of == seed
                }
                for seed in self.seeds
            },
            **summarize(found, self.train_seconds()),
        }

    def train_seconds(self) -> dict[int, dict[str, float]]:
        return {
            seed: {model: s.seconds for (of, model), s in self.trained.items() if of == seed}
            for seed in self.seeds
        }

    def report(self, results: dict) -> None:
        with quietly():  # torch takes its time, and the other steps run in programs of their own
            from demo_parts.pictures import draw_accuracies
            from mmdet_adasap.fileio import write_atomically

        drawn = io.BytesIO()
        draw_accuracies(results).save(drawn, 'PNG')
        picture, table = self.out / 'demo_classification.png', self.out / 'results.json'
        write_atomically(picture, drawn.getvalue())
        write_atomically(table, json.dumps(results, indent=2) + '\n')
        reports = [str(step.folder / 'report.html') for step in self.tested.values()]
        say('\n'.join(f'    {path}' for path in [picture, table, *reports]) + '\n')
        say(format_summary(results))


if __name__ == '__main__':
    arguments = parse_args()
    run_program('demo_classification', lambda: Demo(arguments).run())
