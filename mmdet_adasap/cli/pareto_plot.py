# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Draw what share of the importance is kept for what share of a cost, and the chosen point."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SUFFIXES = ('.svg', '.png', '.pdf')
"""Of the files that the plot can be."""
POINTS = 16
"""Budgets that are solved for a curve, from the floor to the dense model."""


def pareto_points(pruner, scores: list[np.ndarray], resource: str) -> list[tuple[float, float]]:
    """Return shares of a cost and of the importance that a choice within it keeps.

    Args:
        pruner (Pruner): What chooses.
        scores (list[np.ndarray]): Importance of all channels, float of shape ``[size]`` each.
        resource (str): 'params', 'flops' or 'latency'.

    Returns:
        list[tuple[float, float]]: ``(cost, importance)``, the smallest budget first.
    """
    found = []
    floor = pruner.floor(resource)
    for budget in np.linspace(min(floor + 1e-6, 1.0), 1.0, POINTS):
        kept = pruner.select({resource: float(budget)})
        counts = np.array([k.sum() for k in kept])
        found.append((pruner.limits.left(resource, counts), importance_kept(scores, kept)))
    return found


def importance_kept(scores: list[np.ndarray], kept: list[np.ndarray]) -> float:
    """Return the share of the finite importance that the kept channels have."""
    finite = [np.where(np.isfinite(score), score, 0.0) for score in scores]
    total = sum(float(score.sum()) for score in finite)
    left = sum(float(score[k].sum()) for score, k in zip(finite, kept, strict=True))
    return left / total if total else 1.0


def draw_pareto(
    file: Path,
    curve: list[tuple[float, float]],
    chosen: tuple[float, float],
    resource: str,
    title: str,
) -> None:
    """Write the plot, in the format of the file's suffix.

    Args:
        file (Path): The picture: .svg, .png or .pdf.
        curve (list[tuple[float, float]]): What :func:`pareto_points` returned.
        chosen (tuple[float, float]): Cost and importance of the target's choice.
        resource (str): What the cost is of.
        title (str): Text above.
    """
    import matplotlib as mpl

    mpl.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    costs, importances = zip(*curve, strict=True)
    axes.plot(costs, importances, marker='.', color='#3b6ea5', label='budgets')
    axes.plot(*chosen, marker='o', color='#c0392b', linestyle='', label='this target')
    axes.axvline(costs[0], color='0.6', linestyle=':', label=f'floor, {costs[0]:.2f}')
    axes.set_xlabel(f'{resource}, share of the dense model')
    axes.set_ylabel('importance kept')
    axes.set_title(title, fontsize=9)
    axes.grid(color='0.9')
    axes.legend(frameon=False)
    figure.savefig(file)
    plt.close(figure)
