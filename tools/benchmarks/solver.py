# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How good the joint choice of channels is, and how fast, beside other ways to choose.

First on small networks whose every choice is looked at, with one to three resources, and with
tables as a device gives them. Then on detectors of mmdet, with importance drawn by chance: what
share of it is kept within the same FLOPs, and seconds of processor time. With --bound also how far
that is below what no choice can exceed.

examples:
  python tools/benchmarks/solver.py
  python tools/benchmarks/solver.py --cases 0 --bound --configs mmdet::ssd/ssd512_coco.py
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np

from published_way import counts_as_published
from small_networks import (
    Network,
    every_choice,
    measured_tables,
    network,
    options_of,
    scores_of,
    values_of,
)
from solver_bound import TooWideError, upper_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdet_adasap.pruning import PrunableChannels

CONFIGS = (
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    'mmdet::ssd/ssd300_coco.py',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
)
LIMITS = (0.3, 0.5, 0.7)
STEP = 16
EVENTS = 30
"""Steps of the published way where it takes several, an own choice."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=200, help='small networks (default: 200)')
    parser.add_argument('--configs', nargs='*', default=CONFIGS, help='detectors')
    parser.add_argument('--seed', type=int, default=0, help='of the importance (default: 0)')
    parser.add_argument(
        '--bound', action='store_true', help='bound the best choice of each detector from above'
    )
    args = parser.parse_args()
    if args.cases < 0:
        parser.error(f'--cases {args.cases}: must be 0 or more')
    return args


def selected(solver: str, net: Network, limits: Sequence[float], step: int) -> np.ndarray | None:
    """Return how many channels of each group a solver keeps; None if it finds no choice."""
    from mmdet_adasap.errors import UnreachableTargetError
    from mmdet_adasap.pruning import Budget, select_channels, select_jointly

    select = {'joint': select_jointly, 'ranked': select_channels}[solver]
    present = [np.ones(size, dtype=bool) for size in net.sizes]
    budget = Budget(zip(net.costs, limits, strict=True))
    try:
        return np.array([kept.sum() for kept in select(net.scores, present, budget, step)])
    except UnreachableTargetError:
        return None


def compare_small(cases: int, resources: int, rng: np.random.Generator) -> None:
    """Print how far choices are from the best one within limits on several resources."""
    arms = {
        'joint': lambda *case: selected('joint', *case),
        'ranked': lambda *case: selected('ranked', *case),
    }
    if resources == 1:
        arms['published, one shot'] = lambda net, limits, step: counts_as_published(
            net, limits[0], step, 1
        )
        arms[f'published, {EVENTS} steps'] = lambda net, limits, step: counts_as_published(
            net, limits[0], step, EVENTS
        )
    gaps: dict[str, list[float]] = {name: [] for name in arms}
    possible = 0
    for number in range(cases):
        net = network(rng, resources)
        step = (8, 16)[number % 2]
        limits = [
            LIMITS[(number + k * (number // 3)) % 3] * cost(net.sizes)
            for k, cost in enumerate(net.costs)
        ]
        options = options_of(net.sizes, step)
        values = values_of(net.scores, options)
        worth, costs = every_choice(values, [cost.tables(options) for cost in net.costs])
        best = best_within(worth, costs, limits)
        possible += best is not None
        for name, choose in arms.items():
            counts = choose(net, limits, step)
            if counts is not None:
                found = sum(v[o == n][0] for v, o, n in zip(values, options, counts, strict=True))
                gaps[name].append(100 * (1 - found / best))
    print_gaps(f'small networks, resources: {resources}', possible, gaps)


def compare_measured(cases: int, additive: bool, rng: np.random.Generator) -> None:
    """Print how far the joint choice is from the best one with tables as from a device."""
    from mmdet_adasap.pruning.joint import choose_jointly

    gaps: dict[str, list[float]] = {f'joint, resources: {n}': [] for n in (1, 2)}
    possible = 0
    for number in range(cases):
        net = network(rng)
        options = options_of(net.sizes, (8, 16)[number % 2])
        values = values_of(net.scores, options)
        every = [measured_tables(rng, options, additive) for _ in range(2)]
        for resources, found in enumerate(gaps.values(), start=1):
            tables = every[:resources]
            worth, costs = every_choice(values, tables)
            limits = [
                # Between two costs, which are whole numbers.
                np.floor(c.min() + LIMITS[(number + k) % 3] * (c.max() - c.min())) + 0.25
                for k, c in enumerate(costs)
            ]
            best = best_within(worth, costs, limits)
            choice = choose_jointly(values, tables, limits)
            possible += best is not None
            if choice is not None:
                found.append(100 * (1 - worth[tuple(choice)] / best))
    kind = 'of each group alone' if additive else 'of pairs of groups'
    print_gaps(f'tables with stairs, {kind}', possible // 2, gaps)


def best_within(worth: np.ndarray, costs: np.ndarray, limits: Sequence[float]) -> float | None:
    """Return the largest value within limits, None if no choice is within them."""
    fits = (costs <= np.reshape(limits, (-1, *[1] * worth.ndim))).all(axis=0)
    return float(worth[fits].max()) if fits.any() else None


def print_gaps(title: str, possible: int, gaps: dict[str, list[float]]) -> None:
    """Print a line for each way to choose.

    Args:
        title (str): What it is about.
        possible (int): Cases in which there is a choice within the limits.
        gaps (dict[str, list[float]]): Percent below the best one where a choice was found.
    """
    print(f'{title}, {possible} cases: found none, best choice, mean, 95 % and largest gap in %')
    for name, found in gaps.items():
        gap = np.array(found)
        if not len(gap):
            print(f'  {name:<20} {possible:>5}')
            continue
        print(
            f'  {name:<20} {possible - len(gap):>5} {(gap < 1e-7).sum():>5} {gap.mean():8.3f} '
            f'{np.quantile(gap, 0.95):8.3f} {gap.max():8.2f}'
        )


def compare_on(config: str, with_bound: bool, rng: np.random.Generator) -> None:
    """Print what share of the importance both choices keep, and their seconds."""
    from mmdet_adasap.apis import build_dense, build_forward
    from mmdet_adasap.pruning import Budget, select_channels, select_jointly, trace_channels

    model = build_dense(config).eval()
    channels = trace_channels(model, build_forward(model))
    sizes, cost = channels.group_sizes, channels.flops
    scores = scores_of(rng, sizes)
    total = sum(score.sum() for score in scores)
    present = [np.ones(size, dtype=bool) for size in sizes]
    steps = channels.group_steps(STEP)
    print(f'{config}: {len(sizes)} groups; FLOPs left, importance kept, seconds')
    for share in LIMITS:
        limit = share * cost(sizes)
        for name, select in (('joint', select_jointly), ('ranked', select_channels)):
            start = time.process_time()
            kept = select(scores, present, Budget([(cost, limit)]), steps)
            seconds = time.process_time() - start
            counts = np.array([k.sum() for k in kept])
            left = cost(counts) / cost(sizes)
            found = sum(score[k].sum() for score, k in zip(scores, kept, strict=True))
            print(f'  {name:<8} {left:.3f} {found / total:.3f} {seconds:.3f}')
            if name == 'joint' and with_bound:
                print_bound(channels, scores, steps, limit, found)


def print_bound(
    channels: PrunableChannels,
    scores: list[np.ndarray],
    steps: np.ndarray,
    limit: float,
    found: float,
) -> None:
    """Print how far the importance that was kept is below a bound on that of all choices."""
    from mmdet_adasap.pruning.selection import counts_below, minimum_counts

    sizes = channels.group_sizes
    start = time.process_time()
    options = [
        np.array([*reversed(counts_below(size, fewest, step)), size])
        for size, fewest, step in zip(sizes, minimum_counts(sizes, steps), steps, strict=True)
    ]
    try:
        bound = upper_bound(values_of(scores, options), channels.flops.tables(options), limit)
    except TooWideError as error:
        print(f'    no bound: {error}')
        return
    print(
        f'    {100 * (1 - found / bound.value):.3f} % below the bound; at most {bound.width} '
        f'groups at once, {time.process_time() - start:.1f} s'
    )


def main() -> None:
    args = parse_args()
    rng = np.random.default_rng(args.seed)
    if args.cases:
        for resources in (1, 2, 3):
            compare_small(args.cases, resources, rng)
        for additive in (False, True):
            compare_measured(args.cases, additive, rng)
    for config in args.configs:
        compare_on(config, args.bound, np.random.default_rng(args.seed))


if __name__ == '__main__':
    main()
