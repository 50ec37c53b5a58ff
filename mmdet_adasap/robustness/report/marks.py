# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the drawings share: markers of models, axes, labels that keep apart."""

import math
import re
from collections.abc import Mapping, Sequence

from .colours import MODELS
from .markup import Markup, element, join, plain
from .reading import Results

LETTER = 6.8
"""Width of a bold letter of the 11 pixel type of drawings, in pixels; a little too wide."""


def model_classes(results: Results) -> dict[str, str]:
    """The CSS class of each model's colour and marker; the reference has the first."""
    return {
        name: f'm{0 if i == 0 else 1 + (i - 1) % (MODELS - 1)}'
        for i, name in enumerate(results.models)
    }


def marker(kind: str, x: float, y: float, size: float = 4.0, title: str | None = None) -> Markup:
    """The marker of a model.

    Args:
        kind (str): Its class, 'm0' and so on.
        x (float): Its middle.
        y (float): The same.
        size (float): Half of its width. Defaults to 4.
        title (str, optional): What it stands for.
    """
    label = element('title', title) if title else None
    number = int(kind[1:])
    if number == 0:
        return element('circle', label, cx=x, cy=y, r=size, class_=f'dot {kind}')
    return element('path', label, d=_outline(number, x, y, size), class_=f'dot {kind}')


def swatch(kind: str) -> Markup:
    """The marker of a model for use in text."""
    return element(
        'svg', marker(kind, 6.0, 6.0), viewBox='0 0 12 12', class_='swatch', aria_hidden='true'
    )


def named(kind: str, name: str) -> Markup:
    """A model's marker and name."""
    pieces = re.split(r'(?<=[_/.-])', plain(name))
    shown = join(*pieces, by=element('wbr'))
    return element('span', swatch(kind), element('span', shown), class_='name')


def drawing(width: float, height: float, title: str, *children: object) -> Markup:
    """An SVG with a title for those who do not see it."""
    return element(
        'svg',
        element('title', title),
        *children,
        viewBox=f'0 0 {width:g} {height:g}',
        role='img',
        class_='chart',
    )


def text(x: float, y: float, words: str, kind: str = '', **attributes: object) -> Markup:
    """Words in a drawing; ``kind`` may have 'end', 'middle', 'soft', 'strong'."""
    return element('text', words, x=x, y=y, class_=kind or None, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element('line', x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def nice_step(span: float, at_most: int) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and 0.1, ...) with so many steps in a span."""
    raw = max(span, 1e-9) / at_most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def ticks(low: float, high: float, at_most: int = 8) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    step = nice_step(high - low, at_most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def ceiling(high: float, at_most: int = 8) -> float:
    """The end of an axis from 0 that has ``high`` on it, at a round number."""
    step = nice_step(high, at_most)
    return step * math.ceil(high / step - 1e-9) if high > 0 else step


def bounds(low: float, high: float, at_most: int = 8) -> tuple[float, float]:
    """Round ends of an axis with both on it: from 0, unless that would leave half of it empty."""
    if low < high / 2:
        return 0.0, ceiling(high, at_most)
    if low == high:  # somewhere an axis must go
        low, high = 0.9 * low, high or 1.0
    step = nice_step(high - low, at_most)
    return max(step * math.floor(low / step), 0.0), step * math.ceil(high / step - 1e-9) or step


def spread(wanted: Mapping[str, float], gap: float, low: float, high: float) -> dict[str, float]:
    """Places of labels that are at least ``gap`` apart and as near as can be to where they belong.

    Args:
        wanted (Mapping[str, float]): Where each belongs.
        gap (float): The least distance.
        low (float): No label is above this, if there is room.
        high (float): Nor below this.
    """
    order = sorted(wanted, key=lambda name: wanted[name])
    blocks: list[tuple[float, list[str]]] = []
    for name in order:
        middle, members = wanted[name], [name]
        # Labels that would touch stand evenly around the mean of where they belong.
        while (
            blocks
            and blocks[-1][0] + gap * len(blocks[-1][1]) / 2
            > middle - gap * len(members) / 2 + 1e-9
        ):
            _, before = blocks.pop()
            members = before + members
            middle = sum(wanted[each] for each in members) / len(members)
            middle = _within(middle, gap * (len(members) - 1) / 2, low, high)
        middle = _within(middle, gap * (len(members) - 1) / 2, low, high)
        blocks.append((middle, members))
    return {
        name: middle + gap * (i - (len(members) - 1) / 2)
        for middle, members in blocks
        for i, name in enumerate(members)
    }


def label_width(names: Sequence[str], at_most: int) -> float:
    """Room for the longest of some names, shortened to so many letters, in pixels."""
    return LETTER * max(min(len(name), at_most) for name in names)


def grid(children: Sequence[Markup], kind: str = '') -> Markup:
    """Drawings side by side, as many as there is room for."""
    return element('div', join(*children), class_=f'grid {kind}'.strip())


def _within(middle: float, half: float, low: float, high: float) -> float:
    return max(min(middle, high - half), low + half)


def _outline(number: int, x: float, y: float, size: float) -> str:
    s = size
    shapes = (
        ((-s, -s), (s, -s), (s, s), (-s, s)),
        ((0, -1.2 * s), (1.15 * s, 0.9 * s), (-1.15 * s, 0.9 * s)),
        ((0, -1.35 * s), (1.35 * s, 0), (0, 1.35 * s), (-1.35 * s, 0)),
        ((0, 1.2 * s), (1.15 * s, -0.9 * s), (-1.15 * s, -0.9 * s)),
        tuple(
            (sx * s * a, sy * s * b)
            for sx, sy, pairs in (
                (-1, -1, ((1.2, 0.4), (0.4, 0.4), (0.4, 1.2))),
                (1, -1, ((0.4, 1.2), (0.4, 0.4), (1.2, 0.4))),
                (1, 1, ((1.2, 0.4), (0.4, 0.4), (0.4, 1.2))),
                (-1, 1, ((0.4, 1.2), (0.4, 0.4), (1.2, 0.4))),
            )
            for a, b in pairs
        ),
        ((-1.2 * s, 0), (0.9 * s, -1.15 * s), (0.9 * s, 1.15 * s)),
        ((1.2 * s, 0), (-0.9 * s, -1.15 * s), (-0.9 * s, 1.15 * s)),
    )
    points = ' '.join(f'{x + dx:.2f},{y + dy:.2f}' for dx, dy in shapes[number - 1])
    return f'M{points.replace(" ", "L")}Z'
