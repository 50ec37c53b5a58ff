# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How good the joint choice of channels is, and how fast, beside the choice by ranks.

First on small networks whose every choice is looked at: layers in a ring, some of which read two
others (a concat), with importance drawn by chance. Then on detectors of mmdet with importance
drawn likewise: what share of it is kept within the same FLOPs, and seconds of processor time.

examples:
  python tools/benchmarks/solver.py
  python tools/benchmarks/solver.py --cases 50 --configs mmdet::ssd/ssd300_coco.py
"""

import argparse
import time

import numpy as np

CONFIGS = (
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    'mmdet::ssd/ssd300_coco.py',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
)
LIMITS = (0.3, 0.5, 0.7)
STEP = 16


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=200, help='small networks (default: 200)')
    parser.add_argument('--configs', nargs='*', default=CONFIGS, help='detectors')
    parser.add_argument('--seed', type=int, default=0, help='of the importance (default: 0)')
    args = parser.parse_args()
    if args.cases < 0:
        parser.error(f'--cases {args.cases}: must be 0 or more')
    return args


def small_network(rng: np.random.Generator):
    """Return what a network of four to six layers costs, and the sizes of its groups."""
    from mmdet_adasap.pruning.cost import Cost

    sizes = rng.integers(32, 49, rng.integers(4, 7))
    cost = Cost(len(sizes))
    for g in range(len(sizes)):
        read = {(g + 1) % len(sizes): 1.0}
        if rng.random() < 0.4:
            read[int(rng.integers(len(sizes)))] = 1.0
        cost.add(int(rng.integers(1, 50)), (0, {g: 1.0}), (int(rng.integers(0, 9)), read))
    return cost, sizes


def scores_of(rng: np.random.Generator, sizes: np.ndarray) -> list[np.ndarray]:
    """Draw importance: channels differ, and so do layers."""
    return [rng.lognormal(0, 0.5, size) * rng.lognormal(0, 0.5) for size in sizes]


def best_of_all(values: list[np.ndarray], tables, limit: float) -> float | None:
    """Return the largest value within a limit, of every choice there is."""
    places = np.indices([len(value) for value in values])
    worth = sum(value[places[g]] for g, value in enumerate(values))
    cost = np.full(worth.shape, tables.constant)
    for groups, table in tables.tables:
        cost += table[tuple(places[g] for g in groups)]
    fits = cost <= limit
    return float(worth[fits].max()) if fits.any() else None


def compare_small(cases: int, rng: np.random.Generator) -> None:
    """Print how far both choices are from the best one."""
    from mmdet_adasap.errors import UnreachableTargetError
    from mmdet_adasap.pruning import select_channels, select_jointly

    gaps = {'joint': [], 'ranked': []}
    for number in range(cases):
        cost, sizes = small_network(rng)
        scores = scores_of(rng, sizes)
        step = (8, 16)[number % 2]
        options = [np.unique([*range(step, size, step), size]) for size in sizes]
        values = [
            np.concatenate([[0], np.cumsum(np.sort(score)[::-1])])[option]
            for score, option in zip(scores, options, strict=True)
        ]
        limit = LIMITS[number % len(LIMITS)] * cost(sizes)
        best = best_of_all(values, cost.tables(options), limit)
        present = [np.ones(size, dtype=bool) for size in sizes]
        for name, select in (('joint', select_jointly), ('ranked', select_channels)):
            try:
                kept = select(scores, present, cost, limit, step)
            except UnreachableTargetError:
                continue
            found = sum(score[k].sum() for score, k in zip(scores, kept, strict=True))
            gaps[name].append(100 * (1 - found / best))
    print('small networks: solver, cases, best choice, mean, 95 % and largest gap in percent')
    for name, found in gaps.items():
        gap = np.array(found)
        rate = (gap < 1e-7).mean()
        quantile, largest = np.quantile(gap, 0.95), gap.max()
        print(
            f'{name:<8} {len(gap):>5} {rate:8.2f} {gap.mean():8.3f} {quantile:8.3f} {largest:8.2f}'
        )


def compare_on(config: str, rng: np.random.Generator) -> None:
    """Print what share of the importance both choices keep, and their seconds."""
    from mmdet_adasap.apis import build_dense, build_forward
    from mmdet_adasap.pruning import select_channels, select_jointly, trace_channels

    model = build_dense(config).eval()
    channels = trace_channels(model, build_forward(model))
    sizes, cost = channels.group_sizes, channels.flops
    scores = scores_of(rng, sizes)
    total = sum(score.sum() for score in scores)
    present = [np.ones(size, dtype=bool) for size in sizes]
    steps = channels.group_steps(STEP)
    print(f'{config}: {len(sizes)} groups; FLOPs left, importance kept, seconds')
    for share in LIMITS:
        for name, select in (('joint', select_jointly), ('ranked', select_channels)):
            start = time.process_time()
            kept = select(scores, present, cost, share * cost(sizes), steps)
            seconds = time.process_time() - start
            left = cost(np.array([k.sum() for k in kept])) / cost(sizes)
            found = sum(score[k].sum() for score, k in zip(scores, kept, strict=True)) / total
            print(f'  {name:<8} {left:.3f} {found:.3f} {seconds:.3f}')


def main() -> None:
    args = parse_args()
    rng = np.random.default_rng(args.seed)
    if args.cases:
        compare_small(args.cases, rng)
    for config in args.configs:
        compare_on(config, rng)


if __name__ == '__main__':
    main()
