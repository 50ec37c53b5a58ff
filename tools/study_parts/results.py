# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The figures of study.py: what tests have found, tables with spread, and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

REFERENCE = 'plain, equal time'
"""The arm that the others are compared with."""
FIGURES = ('clean', 'mPC', 'rPC')


def read_results(
    out: Path, split: str, arms: Sequence[str], file_name: Callable[[str], str]
) -> list[dict]:
    """Return a line for each arm and seed that was tested.

    Args:
        out (Path): The folder of the study.
        split (str): 'test' or 'val'.
        arms (Sequence[str]): All arms that there are.
        file_name (Callable): Returns what folders of an arm are called.
    """
    found = []
    for folder in sorted(out.glob('seed*'), key=lambda path: int(path.name[4:])):
        for arm in ('dense', *arms):
            results = folder / f'{split}_{file_name(arm)}' / 'results.json'
            training = folder / file_name(arm) / 'training.json'
            if not (results.is_file() and training.is_file()):
                continue
            model = json.loads(results.read_text())['models'][arm]
            line = dict(arm=arm, seed=int(folder.name[4:]))
            line |= {key: model[key] for key in FIGURES}
            found.append(line | json.loads(training.read_text()))
    return found


def format_tables(lines: Sequence[dict], severity: int) -> str:
    """Lay results out in Markdown: means and spread, and paired differences with intervals.

    Args:
        lines (Sequence[dict]): Of :func:`read_results`.
        severity (int): Of the corruptions.
    """
    from seed_statistics import paired_interval

    arms = list(dict.fromkeys(line['arm'] for line in lines))
    by_arm = {a: {line['seed']: line for line in lines if line['arm'] == a} for a in arms}
    base = by_arm.get(REFERENCE, {})
    text = [
        f'Mean ± standard deviation over seeds; mPC over 15 corruptions at severity {severity}.',
        '',
        '| arm | seeds | clean | mPC | rPC | training, s |',
        '|---|---:|---:|---:|---:|---:|',
    ]
    for arm, found in by_arm.items():
        cells = [_spread([line[key] for line in found.values()]) for key in FIGURES]
        seconds = np.mean([line['seconds'] for line in found.values()])
        text.append(f'| {arm} | {len(found)} | {" | ".join(cells)} | {seconds:.0f} |')
    rows = []
    for arm, found in by_arm.items():
        seeds = sorted(base.keys() & found.keys())
        if arm in ('dense', REFERENCE) or len(seeds) < 2:
            continue
        cells = []
        for key in FIGURES:
            pairs = ([by_seed[seed][key] for seed in seeds] for by_seed in (found, base))
            mean, low, high = paired_interval(*pairs)
            cells.append(f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]')
        rows.append(f'| {arm} | {len(seeds)} | {" | ".join(cells)} |')
    if rows:
        text += [
            '',
            f"Difference to '{REFERENCE}' of the same seed, with a 95 % interval (Student's t).",
            '',
            '| arm | seeds | clean | mPC | rPC |',
            '|---|---:|---:|---:|---:|',
            *rows,
        ]
    return '\n'.join(text)


def _spread(values: Sequence[float]) -> str:
    deviation = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{deviation}'


def draw(lines: Sequence[dict], file: Path, title: str) -> None:
    """Draw mPC against clean accuracy, a point for each arm and a small one for each seed.

    Args:
        lines (Sequence[dict]): Of :func:`read_results`.
        file (Path): The picture.
        title (str): Above it.
    """
    from matplotlib.figure import Figure

    figure = Figure((8, 5), layout='constrained')
    axes = figure.subplots()
    for number, arm in enumerate(dict.fromkeys(line['arm'] for line in lines)):
        clean, mpc = zip(*[(x['clean'], x['mPC']) for x in lines if x['arm'] == arm], strict=True)
        color, marker = f'C{number % 10}', 'oD'[number // 10]
        axes.plot(clean, mpc, '.', color=color, alpha=0.4)
        axes.plot(np.mean(clean), np.mean(mpc), marker, color=color, label=arm, markersize=8)
    axes.set(xlabel='clean', ylabel='under corruptions (mPC)', title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)
