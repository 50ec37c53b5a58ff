# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How far a predicted latency is from the measured one, and whether a pruned network is faster.

For each detector and backend a table is measured twice; the networks' sums in both are compared.
Then the detector is brought to four shares of its dense latency, by importance drawn by chance,
and each cut copy is timed against the dense network, in turns, with the clock of the table. 'loop'
is the same after the limit was corrected by what was measured, as a run of AdaSAPHook does it.
With --flops the default settings of AdaSAPHook remove shares of the FLOPs instead, and each
network is timed: it must not be slower than the dense one.

Results are appended to OUT/results.jsonl, and a second call goes on where the first one stopped.
--table prints what is there.

examples:
  python tools/benchmarks/latency.py --models ssdlite --backends torch     # some minutes
  python tools/benchmarks/latency.py
  python tools/benchmarks/latency.py --flops
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    'ssd512': (str(ROOT / 'configs/ssd512/ssd512_r50_8xb16-800e_voc0712.py'), 512),
    'yolox': ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 320),
    'ssdlite': ('mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', 320),
    'retinanet': ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 320),
}
"""By name: the config, and the side of the image in pixels."""
BACKENDS = ('torch', 'onnxruntime')
SHARES = (0.85, 0.7, 0.55, 0.45)
"""Of the dense latency that are to remain. Below some 0.4 SSDLite cannot go in torch."""
REFEREE_PAIRS = 11
"""Times that networks are loaded for the last timing."""
REMOVED = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
"""Of the FLOPs, with --flops."""


def random_importance(seed: int):
    """Return a criterion that draws scores: channels differ, and so do layers."""
    from mmdet_adasap.pruning import Importance

    class RandomImportance(Importance):
        """Scores by chance, the same for a group in each call."""

        def scores(self, group, tensors, kept):
            rng = np.random.default_rng((seed, group.index))
            found = rng.lognormal(0, 0.5, group.size) * rng.lognormal(0, 0.5)
            return torch.as_tensor(found)

    return RandomImportance()


class Case:
    """A dense detector, what runs it, and its channels for a target.

    Args:
        name (str): A key of :data:`MODELS`.
        seed (int): Of the importance.
    """

    def __init__(self, name: str, seed: int) -> None:
        from mmdet_adasap.apis import build_forward
        from mmdet_adasap.cli.dense_model import build_model

        torch.manual_seed(0)
        config, self.size = MODELS[name]
        self.model = build_model(config)[1].eval()
        self.forward = build_forward(self.model, image_size=self.size)
        self.seed = seed

    def pruner(self, target: dict, **settings):
        from mmdet_adasap.pruning import Pruner

        importance = random_importance(self.seed)
        return Pruner(self.model, self.forward, target, importance, **settings)


def measure_tables(case: Case, backend: str, folder: Path) -> tuple:
    """Measure two tables, or read them; return both and the difference of the networks' sums."""
    from mmdet_adasap.apis import measure_table
    from mmdet_adasap.pruning import find_channels, widths

    tables = [
        measure_table(case.model, case.size, folder / f'{number}.json', backend)
        for number in (1, 2)
    ]
    channels = find_channels(case.model, case.forward)
    calls = [call for call in channels.calls if call.is_timed]
    lengths = [
        [round(float(widths(axis, channels.group_sizes))) for axis in (call.inputs, call.outputs)]
        for call in calls
    ]
    # In units of the reference convolution, which is what is stored.
    ratios = [
        sum(float(t.time(c.key.to_dict(), *n)) for c, n in zip(calls, lengths, strict=True))
        / t.reference_ns
        for t in tables
    ]
    return tables, abs(ratios[1] / ratios[0] - 1)


def compare(name: str, backend: str, out: Path, seed: int, done: set) -> Iterator[dict]:
    """Yield predicted and measured shares of all budgets."""
    from mmdet_adasap.export import time_share_on
    from mmdet_adasap.pruning import select_timed

    if all((name, backend, seed, share) in done for share in SHARES):
        return
    case, folder = Case(name, seed), out / f'{name}_{backend}'
    folder.mkdir(parents=True, exist_ok=True)
    (table, _), apart = measure_tables(case, backend, folder)
    time_share = time_share_on(table)
    for share in SHARES:
        if (name, backend, seed, share) in done:
            continue
        line = dict(model=name, backend=backend, seed=seed, share=share, tables_apart=apart)
        pruner = case.pruner(
            dict(latency=share, table=table), round_to=max(8, table.step), solver='joint'
        )
        first = []

        def timed(dense, slim, first=first):
            first.append(time_share(dense, slim))
            return first[-1]

        choice = select_timed(pruner, pruner.targets, timed)
        # A new timing, since the one that ended the loop was chosen for being close; and a finer
        # one, whose own noise is not to count.
        slim = pruner.cut_copy(choice.kept)
        again = time_share(pruner.model, slim, pairs=REFEREE_PAIRS)
        yield line | dict(
            predicted=share, measured=first[0], cuts=len(first), loop=again, loop_seen=first[-1]
        )


def faster(name: str, backend: str, out: Path, seed: int, done: set) -> Iterator[dict]:
    """Yield the measured share of networks that lost a share of their FLOPs."""
    from mmdet_adasap.export import time_share_on

    missing = [r for r in REMOVED if (name, backend, seed, -r) not in done]
    if not missing:
        return
    case, folder = Case(name, seed), out / f'{name}_{backend}'
    folder.mkdir(parents=True, exist_ok=True)
    (table, _), _ = measure_tables(case, backend, folder)
    time_share = time_share_on(table)
    for removed in missing:
        pruner = case.pruner(dict(flops=1 - removed), round_to=8)
        kept = pruner.select(pruner.targets)
        measured = time_share(pruner.model, pruner.cut_copy(kept))
        yield dict(model=name, backend=backend, seed=seed, share=-removed, measured=measured)


def read(results: Path) -> list[dict]:
    """Return the lines of a results file, none if there is no file."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def report(lines: list[dict]) -> str:
    """Lay the results out in Markdown."""
    text = []
    rows = [x for x in lines if x['share'] > 0]
    if rows:
        text += [
            '| model | backend | tables apart | wanted | measured by the table | after the loop |',
            '|---|---|---:|---:|---:|---:|',
        ]
        text += [
            f'| {x["model"]} | {x["backend"]} | {100 * x["tables_apart"]:.1f} % | '
            f'{x["share"]:.2f} | {x["measured"]:.3f} | {x["loop"]:.3f} |'
            for x in rows
        ]
        errors = np.array([abs(x['measured'] / x['share'] - 1) for x in rows])
        over = np.array([x['loop'] / x['share'] - 1 for x in rows])
        text.append(
            f'\nerror of the table: median {np.median(errors):.1%}, 95 % of {len(errors)} cases '
            f'{np.quantile(errors, 0.95):.1%}; after the loop at most {over.max():+.1%} '
            f'(median {np.median(over):+.1%})'
        )
    rows = [x for x in lines if x['share'] < 0]
    if rows:
        shares = sorted({-x['share'] for x in rows})
        text += [
            '\n| model | backend | ' + ' | '.join(f'-{s:.0%}' for s in shares) + ' |',
            '|---|---|' + '---:|' * len(shares),
        ]
        for name, backend in dict.fromkeys((x['model'], x['backend']) for x in rows):
            found = {
                -x['share']: x['measured']
                for x in rows
                if (x['model'], x['backend']) == (name, backend)
            }
            cells = ' | '.join(f'{found[s]:.2f}' if s in found else '' for s in shares)
            text.append(f'| {name} | {backend} | {cells} |')
    return '\n'.join(text)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--backends', nargs='+', choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument('--seed', type=int, default=0, help='of the importance (default: 0)')
    parser.add_argument('--flops', action='store_true', help='remove FLOPs by the defaults')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs' / 'latency')
    parser.add_argument('--table', action='store_true', help='print the results that are there')
    return parser.parse_args()


def main() -> None:
    """Run what is asked for and print the table."""
    args = parse_args()
    results = args.out.resolve() / 'results.jsonl'
    if not args.table:
        torch.set_num_threads(1)
        results.parent.mkdir(parents=True, exist_ok=True)
        done = {(x['model'], x['backend'], x['seed'], x['share']) for x in read(results)}
        jobs = [(name, backend) for name in args.models for backend in args.backends]
        run = faster if args.flops else compare
        for name, backend in tqdm(jobs, disable=not sys.stderr.isatty()):
            for line in run(name, backend, results.parent, args.seed, done):
                with results.open('a') as file:
                    file.write(json.dumps(line) + '\n')
    print(report(read(results)))


if __name__ == '__main__':
    main()
