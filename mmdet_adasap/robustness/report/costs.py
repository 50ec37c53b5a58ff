# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Accuracy against what it costs: parameters and milliseconds."""

from collections.abc import Callable
from typing import NamedTuple

from .marks import (
    ceiling,
    drawing,
    grid,
    label_width,
    line,
    marker,
    model_classes,
    spread,
    text,
    ticks,
)
from .markup import Markup, element
from .reading import Cost, Figure, Results
from .words import metric, quantity, shortened, with_ends

WIDTH, HEIGHT, TOP, BOTTOM, LEFT = 380, 270, 28, 40, 34
LETTERS = 16


class _Point(NamedTuple):
    name: str
    kind: str
    at: float
    clean: Figure
    mpc: Figure


def scatters(results: Results) -> Markup | None:
    """mPC and clean P against parameters and against latency; None for less than 2 models."""
    panels = [
        _panel(results, 'parameters, millions', lambda cost: cost.params and cost.params / 1e6),
        _panel(results, 'milliseconds an image', lambda cost: cost.latency_ms),
    ]
    panels = [panel for panel in panels if panel is not None]
    if not panels:
        return None
    threads = {m.cost.threads for m in results.models.values()} - {None}
    sizes = {m.cost.image for m in results.models.values()} - {()}
    how = [
        f'{" or ".join(str(n) for n in sorted(threads))} thread{"s" * (threads != {1})}'
        if threads
        else '',
        ' or '.join(f'{side[1]} by {side[0]} pixels' for side in sorted(sizes)),
    ]
    return element(
        'figure',
        grid(panels),
        element(
            'figcaption',
            f'Filled with a name: mPC; hollow: clean {metric(results)}. Whiskers: 95 % intervals. '
            f'Time is the median for one image, ',
            ', '.join(each for each in how if each) or 'size and threads unknown',
            '.',
        ),
    )


def _panel(results: Results, title: str, cost_of: Callable[[Cost], float | None]) -> Markup | None:
    kinds = model_classes(results)
    points = [
        _Point(m.name, kinds[m.name], cost_of(m.cost), m.figures['clean'], m.figures['mPC'])
        for m in results.models.values()
        if cost_of(m.cost) and m.figures['mPC'].value is not None
    ]
    if len(points) < 2:
        return None
    right = WIDTH - 20 - label_width([point.name for point in points], LETTERS)
    bottom = HEIGHT - BOTTOM
    highest = ceiling(
        100 * max(end for p in points for f in (p.clean, p.mpc) for end in f if end is not None)
    )
    widest = ceiling(max(point.at for point in points))

    def across(value: float) -> float:
        return LEFT + value / widest * (right - LEFT - 6)

    def down(value: float) -> float:
        return bottom - 100 * value / highest * (bottom - TOP)

    heading = f'{metric(results)} against {title}'
    parts = [text(0, 14, heading, 'strong')]
    for value in ticks(0, highest):
        y = down(value / 100)
        parts.append(line(LEFT, y, right, y, 'axis' if not value else 'rule'))
        parts.append(text(LEFT - 6, y + 4, f'{value:g}', 'soft end'))
    for value in ticks(0, widest):
        parts.append(text(across(value), bottom + 16, f'{value:g}', 'soft middle'))
    parts.append(text((LEFT + right) / 2, bottom + 33, title, 'soft middle'))
    for point in points:
        x = across(point.at)
        parts.append(
            line(x, down(point.clean.value), x, down(point.mpc.value), f'stem {point.kind}')
        )
        for figure, name, kind in (
            (point.clean, f'clean {metric(results)}', 'hollow'),
            (point.mpc, 'mPC', ''),
        ):
            if figure.low is not None:
                ends = down(figure.low), down(figure.high)
                parts.append(line(x, ends[0], x, ends[1], f'whisker {point.kind}'))
            label = f'{point.name}, {name}: {with_ends(figure)} at {quantity(point.at)} {title}'
            shape = marker(point.kind, x, down(figure.value), 4.6, label)
            parts.append(element('g', shape, class_=kind or None))
    wanted = {point.name: down(point.mpc.value) for point in points}
    for name, y in spread(wanted, 13.0, TOP + 6, bottom - 2).items():
        point = next(each for each in points if each.name == name)
        parts.append(
            line(across(point.at) + 7, down(point.mpc.value), right + 4, y, f'leader {point.kind}')
        )
        parts.append(
            element(
                'text',
                element('title', name),
                shortened(name, LETTERS),
                x=right + 8,
                y=y + 4,
                class_=f'own {point.kind}',
            )
        )
    return drawing(WIDTH, HEIGHT, heading, *parts)
