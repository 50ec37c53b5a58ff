# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The tables of equal_time.py: means over seeds, and paired differences with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from seed_statistics import paired_interval, spread

ALLOWED = 0.03
"""How far a measured share may be from the wanted one, relative to it, to count as equal time."""


def is_equal_time(line: dict) -> bool:
    """Return whether the time of a result is close enough to the wanted one."""
    return abs(line['share'] - line['wanted']) <= ALLOWED * line['wanted']


def format_table(
    lines: list[dict], models: Sequence[str], arms: Sequence[str], reference: str | None = None
) -> str:
    """Lay results out in Markdown: for each model the arms, then what they differ by.

    Args:
        lines (list[dict]): Of results.jsonl.
        models (Sequence[str]): In this order.
        arms (Sequence[str]): In this order.
        reference (str, optional): The arm that differences are to. Defaults to the first.
    """
    text = []
    for model in models:
        here = [x for x in lines if x['model'] == model]
        for wanted, backend in sorted({(x['wanted'], x['backend']) for x in here}):
            found = {
                arm: {x['seed']: x for x in here if _kind(x) == (wanted, backend, arm)}
                for arm in ('dense', *arms)
            }
            found = {arm: by_seed for arm, by_seed in found.items() if by_seed}
            text += [f'\n{model}, {wanted:g} of the time in {backend}\n', *_means(found), '']
            text += _differences(found, reference or arms[0], arms)
    return '\n'.join(text)


def _kind(line: dict) -> tuple[float, str, str]:
    return line['wanted'], line['backend'], line['arm']


def _means(found: dict[str, dict[int, dict]]) -> list[str]:
    rows = [
        '| arm | seeds | clean | mPC | measured time | params | MACs |',
        '|---|---:|---:|---:|---:|---:|---:|',
    ]
    for arm, by_seed in found.items():
        good = _good(by_seed)
        failed = [x for x in by_seed.values() if 'error' in x]
        if failed:
            rows.append(f'| {arm} | {len(failed)} failed | {failed[0]["error"][:70]} | | | | |')
        if not good:
            continue
        cells = [spread([x[key] for x in good.values()]) for key in ('clean', 'mPC', 'share')]
        off = sum(not is_equal_time(x) for x in good.values()) if arm != 'dense' else 0
        cells[2] += f' ({off} off)' if off else ''
        cells += [f'{np.mean([x[key] for x in good.values()]):.2f}' for key in ('params', 'flops')]
        rows.append(f'| {arm} | {len(good)} | {" | ".join(cells)} |')
    return rows


def _differences(
    found: dict[str, dict[int, dict]], reference: str, arms: Sequence[str]
) -> list[str]:
    others = [arm for arm in arms if arm != reference]
    rows = [
        f'| difference to {reference!r}, paired, 95 % interval | seeds | clean | mPC |',
        '|---|---:|---:|---:|',
    ]
    base = _good(found.get(reference, {}))
    for arm in others:
        good = _good(found.get(arm, {}))
        seeds = sorted(base.keys() & good.keys())
        if not seeds:
            continue
        cells = []
        for key in ('clean', 'mPC'):
            pairs = ([by_seed[seed][key] for seed in seeds] for by_seed in (good, base))
            mean, low, high = paired_interval(*pairs)
            cells.append(f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]')
        rows.append(f'| {arm} | {len(seeds)} | {" | ".join(cells)} |')
    return rows if len(rows) > 2 else []


def _good(by_seed: dict[int, dict]) -> dict[int, dict]:
    """Return the results without those of arms that failed."""
    return {seed: line for seed, line in by_seed.items() if 'clean' in line}
