# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
r"""Compare ways to train a pruned model that is to see well on corrupted images.

For each seed a dense model is trained, and brought to half of its parameters by each arm, from the
same checkpoint, with the same criterion and events. All are tested on the same images, clean and
under the 15 corruptions of the benchmark. What differs is the sharpness of the steps, and how many
epochs there are: an arm "at equal time" has as many as two passes in every step would take.
Everything goes through train.py of mmdet and of mmpretrain, and tools/robustness.py.

A second call goes on where the first one stopped, with more seeds or arms, too. --split val is for
choosing settings, with seeds of its own; look at the test images once.

examples:
  python tools/study.py --set tiny_voc --seeds 0-1                     # no data needed
  python tools/study.py --set bccd --data-root data/BCCD_Dataset/BCCD --seeds 0-4 --jobs 2
  python tools/study.py --set tiny_voc --table                         # of what is there
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(ROOT / 'tools' / 'demo'), str(ROOT / 'tools' / 'benchmarks')]

from study_parts.arms import ARMS, config_of  # noqa: E402
from study_parts.results import draw, format_tables, read_results  # noqa: E402
from study_parts.sets import SETS, with_data  # noqa: E402

from demo_parts.program import make_parser, run_program, say  # noqa: E402
from demo_parts.steps import Plan, Step, Training, fingerprint  # noqa: E402

SEVERITY = 3
"""The middle one of five, as in the demo."""


def seeds(text: str) -> list[int]:
    """Read '0-4' or '0,2,5' from the command line."""
    found = []
    for part in text.split(','):
        ends = re.fullmatch(r'(\d+)(?:-(\d+))?', part)
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else [-1]
    if not found or min(found) < 0:
        raise argparse.ArgumentTypeError(f'{text!r}: write seeds as 0-4 or 0,2,5')
    return sorted({*found})


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__, 'study')
    parser.add_argument(
        '--set',
        required=True,
        choices=SETS,
        help='; '.join(f'{name}: {each.says}' for name, each in SETS.items()),
    )
    parser.add_argument(
        '--data-root', type=Path, help='where the set is (default: data/tiny_voc for tiny_voc)'
    )
    parser.add_argument(
        '--arms',
        nargs='+',
        choices=ARMS,
        metavar='ARM',
        default=list(ARMS),
        help='; '.join(f"'{name}': {arm.says}" for name, arm in ARMS.items()),
    )
    parser.add_argument('--seeds', type=seeds, default=[0, 1], help='default: 0-1')
    parser.add_argument(
        '--split', choices=('test', 'val'), default='test', help='images of the figures'
    )
    parser.add_argument('--table', action='store_true', help='show what is there, train nothing')
    args = parser.parse_args()
    if args.data_root is None:
        if not SETS[args.set].at_home:
            parser.error(f'--set {args.set} needs --data-root, the folder of the set')
        args.data_root = ROOT / 'data' / args.set
    args.data_root = args.data_root.resolve()
    args.out = args.out / args.set
    return args


class Study:
    """The trainings and tests of one set; each has a folder of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.set = args, SETS[args.set]
        self.configs = args.out / 'configs'
        self.steps: dict[tuple[int, str], Step] = {}

    def run(self) -> None:
        """Train and test what is missing, seed by seed; write the tables after each."""
        args = self.args
        if not args.table:
            self.configs.mkdir(parents=True, exist_ok=True)
            data = self.set.prepare(args.data_root, self.configs)
            # A study takes hours, during which other parts of the package change.
            packages = ('onedl-mmdetection', 'mmdet', 'onedl-mmpretrain', 'mmpretrain')
            plan = Plan(self.set.tool, packages, args.jobs, args.force, follow_code=False)
            files = {name: self._write(name, data) for name in ('dense', *args.arms)}
            for seed in args.seeds:
                self._run_seed(plan, files, seed)
                self._report(quiet=seed != args.seeds[-1])
        else:
            self._report(quiet=False)

    def _write(self, name: str, data: dict) -> Path:
        """Write the config of an arm, or of the dense model, and return its path."""
        if name == 'dense':
            cfg = self.set.config('dense')
        else:
            cfg = config_of(self.set.config('adasap'), ARMS[name])
        with_data(cfg, data)
        if self.args.split == 'val':
            cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
        file = self.configs / f'{_file_name(name)}.py'
        cfg.dump(file)
        return file

    def _run_seed(self, plan: Plan, files: dict[str, Path], seed: int) -> None:
        folder = self.args.out / f'seed{seed}'
        say(f'seed {seed}: {folder}')
        plan.use_set(fingerprint(str(self.args.data_root)))
        trained = {'dense': self._train(plan, files, folder, seed, 'dense', None)}
        for name in self.args.arms:
            trained[name] = self._train(plan, files, folder, seed, name, trained['dense'])
        # Another choice of arms is another test, which repeats nothing but the dense model's.
        for name, step in trained.items():
            test = folder / f'{self.args.split}_{_file_name(name)}'
            plan.add_test(f'test {name}', test, files['dense'], {name: step}, [SEVERITY], 0)
        plan.run()
        for step in trained.values():
            seconds = dict(seconds=step.seconds)
            (step.folder / 'training.json').write_text(json.dumps(seconds))

    def _train(
        self,
        plan: Plan,
        files: dict[str, Path],
        folder: Path,
        seed: int,
        name: str,
        start: Step | None,
    ) -> Step:
        run = Training(
            f'{name}, seed {seed}', folder / _file_name(name), files[name], [], seed, start
        )
        return plan.add_training(run)

    def _report(self, quiet: bool) -> None:
        found = read_results(self.args.out, self.args.split, [*ARMS], _file_name)
        if not found:
            say(f'nothing is in {self.args.out} yet')
            return
        text = format_tables(found, SEVERITY)
        (self.args.out / f'{self.args.split}.md').write_text(text + '\n')
        lines = [json.dumps(line) for line in found]
        (self.args.out / f'{self.args.split}.jsonl').write_text('\n'.join(lines) + '\n')
        draw(found, self.args.out / f'{self.args.split}.png', f'{self.args.set}, {self.set.says}')
        if not quiet:
            say(text)
            say(f'{self.args.out / self.args.split}.md, .jsonl and .png')


def _file_name(arm: str) -> str:
    return arm.replace(',', '').replace(' ', '_').replace('.', '_')


if __name__ == '__main__':
    arguments = parse_args()
    run_program('study', lambda: Study(arguments).run())
