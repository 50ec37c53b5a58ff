# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Axes of a chart: places values in pixels and collects the SVG marks that a template writes.

Charts are our own SVG, because a page has to work offline, without scripts, and to follow the
reader's light or dark colours through CSS classes.
"""

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from .colours import MODEL_COLOUR_COUNT
from .schema import Estimate, Results
from .text import letter_count, shorten_names

K = TypeVar('K', bound=Hashable)
LETTER_WIDTH = 6.8
"""Pixels of a bold letter in the 11 pixel type of charts, with some room to spare: the font is
the reader's, so that the width of a name can only be estimated."""
TEXT_DROP = 4
"""Pixels from the middle of a line of that type down to its baseline."""
MAX_TICKS = 8
"""Of an axis about 200 pixels long; its numbers stand about 25 pixels apart or more."""
LABEL_GAP = 13.0
"""Pixels from one name of a model to the next, so that 11 pixel type does not touch."""
MAX_NAME_LENGTH = 16
"""Letters of a model's name beside a chart; its tooltip has the whole name."""
_CROSS_ARM = ((1.2, 0.4), (0.4, 0.4), (0.4, 1.2))
"""One of the four corners of a cross, from the middle of one arm to that of the next."""
SHAPES = (
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),  # square
    ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),  # triangle, point up
    ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),  # diamond
    ((0, 1.2), (1.15, -0.9), (-1.15, -0.9)),  # triangle, point down
    tuple(
        (x_sign * x, y_sign * y)
        for x_sign, y_sign, corner in (
            (-1, -1, _CROSS_ARM),
            (1, -1, _CROSS_ARM[::-1]),
            (1, 1, _CROSS_ARM),
            (-1, 1, _CROSS_ARM[::-1]),
        )
        for x, y in corner
    ),
    ((-1.2, 0), (0.9, -1.15), (0.9, 1.15)),  # triangle, point left
    ((1.2, 0), (-0.9, -1.15), (-0.9, 1.15)),  # triangle, point right
)
"""Outlines of the markers of models 1 to 7, for a size of 1; they look equally large to the eye.
Model 0, the reference, has a circle."""


class Mark(NamedTuple):
    """An SVG element.

    Attributes:
        tag (str): 'line', 'text', 'circle', 'path', 'polyline' or 'g'.
        attributes (dict[str, str | float]): Its attributes.
        text (str): Its text. Defaults to none.
        title (str): Its tooltip. Defaults to none.
        children (tuple[Mark, ...]): What it groups. Defaults to nothing.
    """

    tag: str
    attributes: dict[str, str | float]
    text: str = ''
    title: str = ''
    children: tuple['Mark', ...] = ()


class ModelLabel(NamedTuple):
    """A model's name, the CSS class of its colour, 'm0' to 'm7', and a short name for charts."""

    name: str
    css_class: str
    short: str

    @property
    def swatch(self) -> Mark:
        """Its marker, for a drawing of 12 by 12 pixels beside the name."""
        return marker(self.css_class, 6.0, 6.0, 4.0)

    @property
    def pieces(self) -> list[str]:
        """Its name in pieces, between which a line may end."""
        return split_name(self.name)


def split_name(name: str) -> list[str]:
    """Return a name in pieces, between which a line may end."""
    return re.split(r'(?<=[_/.-])', name)


def model_labels(results: Results) -> dict[str, ModelLabel]:
    """Return the label of each model; the reference has the first colour and marker for itself."""
    # Of more models than colours the others share theirs, and the reference still does not.
    numbers = [
        0 if i == 0 else 1 + (i - 1) % (MODEL_COLOUR_COUNT - 1) for i in range(len(results.models))
    ]
    short = shorten_names(list(results.models), MAX_NAME_LENGTH)
    return {
        name: ModelLabel(name, f'm{number}', short[name])
        for name, number in zip(results.models, numbers, strict=True)
    }


class Axes:
    """A chart with a plot area and an x and a y axis.

    Args:
        title (str): What the chart shows, for those who do not see it.
        size (tuple[float, float]): Width and height in pixels.
        area (tuple[float, float, float, float]): Left, top, right and bottom edge of the plot
            area in pixels.
        x_limits (tuple[float, float]): Values at the left and right edge.
        y_limits (tuple[float, float]): Values at the bottom and top edge; the first may be the
            larger one, then values grow downwards.
        x_padding (tuple[float, float]): Pixels left free inside the left and right edge. Defaults
            to none.
    """

    def __init__(
        self,
        title: str,
        size: tuple[float, float],
        area: tuple[float, float, float, float],
        x_limits: tuple[float, float],
        y_limits: tuple[float, float],
        x_padding: tuple[float, float] = (0, 0),
    ) -> None:
        self.title, self.size = title, size
        self.left, self.top, self.right, self.bottom = area
        self.x_limits, self.y_limits, self.x_padding = x_limits, y_limits, x_padding
        self.marks: list[Mark] = []

    def x(self, value: float) -> float:
        """Return the pixel of a value on the x axis."""
        low, high = self.x_limits
        start, end = self.left + self.x_padding[0], self.right - self.x_padding[1]
        return start + (value - low) / (high - low) * (end - start)

    def y(self, value: float) -> float:
        """Return the pixel of a value on the y axis."""
        low, high = self.y_limits
        # Pixels of SVG grow downwards, values upwards.
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def line(self, start: tuple[float, float], end: tuple[float, float], css_class: str) -> None:
        """Draw a line from pixel to pixel."""
        ends = dict(x1=start[0], y1=start[1], x2=end[0], y2=end[1])
        self.marks.append(Mark('line', {**ends, 'class': css_class}))

    def text(self, x: float, y: float, words: str, css_class: str, title: str = '') -> None:
        """Write words at a pixel; classes 'end' and 'middle' say which part of them is there."""
        self.marks.append(Mark('text', {'x': x, 'y': y, 'class': css_class}, words, title))

    def heading(self, words: str, x: float = 0) -> None:
        """Write words above the plot area, from the left edge or from pixel ``x`` on."""
        # The baseline of 13 pixel type (.strong in style.css) at the upper edge.
        self.text(x, 14, words, 'strong')

    def y_ticks(self, values: Iterable[float], base: float) -> None:
        """Draw a horizontal rule at each value, with its number; that at ``base`` is the axis."""
        for value in values:
            y = self.y(value)
            css_class = 'axis' if value == base else 'rule'
            self.line((self.left, y), (self.right, y), css_class)
            self.text(self.left - 6, y + TEXT_DROP, f'{value:g}', 'soft end')

    def x_rules(self, values: Iterable[float], base: float) -> None:
        """Draw a vertical rule at each value, with its signed number; that at ``base`` as axis."""
        for value in values:
            x = self.x(value)
            css_class = 'axis' if value == base else 'rule'
            self.line((x, self.top), (x, self.bottom), css_class)
            self.x_tick(value, f'{value:+g}'.replace('-', '\N{MINUS SIGN}') if value else '0')

    def x_tick(self, value: float, label: str) -> None:
        """Write a label below a value of the x axis."""
        # One line of type below the axis, and some room.
        self.text(self.x(value), self.bottom + 16, label, 'soft middle')

    def x_title(self, words: str, below: float) -> None:
        """Write what the x axis is, so many pixels below it."""
        self.text((self.left + self.right) / 2, self.bottom + below, words, 'soft middle')

    def whisker(self, label: ModelLabel, x: float, estimate: Estimate) -> None:
        """Draw the interval of an estimate at a pixel of the x axis, if it has one.

        Args:
            label (ModelLabel): The label of the model.
            x (float): The pixel.
            estimate (Estimate): A fraction; the y axis has it times 100.
        """
        if estimate.low is not None:
            # Fractions times 100, as all numbers of a report.
            ends = self.y(100 * estimate.low), self.y(100 * estimate.high)
            self.line((x, ends[0]), (x, ends[1]), f'whisker {label.css_class}')

    def name_models(
        self,
        wanted: Mapping[ModelLabel, float],
        offset: float,
        leaders_from: Mapping | None = None,
    ) -> None:
        """Write names of models right of the plot area, at the height of their marks.

        Args:
            wanted (Mapping[ModelLabel, float]): Each model's height in pixels; names that would
                overlap are moved.
            offset (float): Pixels from the right edge to the names.
            leaders_from (Mapping[ModelLabel, float], optional): The x pixel of each model's mark,
                from which a leader goes to its name. Defaults to no leaders.
        """
        # Neither in the heading nor below the axis.
        placed = spread_labels(wanted, LABEL_GAP, self.top + 6, self.bottom - 2)
        for label, y in placed.items():
            if leaders_from is not None:
                start = leaders_from[label] + 7, wanted[label]
                self.line(start, (self.right + 4, y), f'leader {label.css_class}')
            self.text(
                self.right + offset,
                y + TEXT_DROP,
                label.short,
                f'own {label.css_class}',
                title=label.name,
            )


def marker(css_class: str, x: float, y: float, size: float, title: str = '') -> Mark:
    """Return the marker of a model, which also differs in shape, for those who see no colours.

    Args:
        css_class (str): Class of the model's colour, 'm0' to 'm7'.
        x (float): Its middle in pixels.
        y (float): The same.
        size (float): Half of its width in pixels.
        title (str): Its tooltip. Defaults to none.
    """
    # The class is the only thing that a model's colour and shape have in common.
    number = int(css_class[1:])
    attributes = {'class': f'dot {css_class}'}
    if number == 0:
        return Mark('circle', {'cx': x, 'cy': y, 'r': size, **attributes}, title=title)
    points = 'L'.join(f'{x + size * dx:.2f},{y + size * dy:.2f}' for dx, dy in SHAPES[number - 1])
    return Mark('path', {'d': f'M{points}Z', **attributes}, title=title)


def nice_step(span: float, at_most: int) -> float:
    """Return the smallest of 1, 2, 5, 10, ... (and 0.1, ...) that fits ``at_most`` into a span."""
    raw = max(span, 1e-9) / at_most
    power = 10.0 ** math.floor(math.log10(raw))
    # 1e-9 here and below: a span of 0.3 is 0.30000000000000004 and must not take another step.
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def ticks(low: float, high: float, at_most: int = MAX_TICKS) -> list[float]:
    """Return round numbers from ``low`` to ``high``."""
    step = nice_step(high - low, at_most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, because 3 * 0.1 would be written as 0.30000000000000004.
    return [round(i * step, 10) for i in range(first, last + 1)]


def upper_limit(high: float, at_most: int = MAX_TICKS) -> float:
    """Return the round end of an axis from 0 that has ``high`` on it."""
    step = nice_step(high, at_most)
    return step * math.ceil(high / step - 1e-9) if high > 0 else step


def axis_limits(low: float, high: float, at_most: int = MAX_TICKS) -> tuple[float, float]:
    """Return round ends of an axis: from 0, unless that would leave half of it empty."""
    if low < high / 2:
        return 0.0, upper_limit(high, at_most)
    if low == high:  # an axis needs some length all the same
        low, high = 0.9 * low, high or 1.0
    step = nice_step(high - low, at_most)
    return max(step * math.floor(low / step), 0.0), step * math.ceil(high / step - 1e-9) or step


def spread_labels(
    wanted: Mapping[K, float], gap: float, low: float, high: float
) -> dict[K, float]:
    """Place labels at least ``gap`` apart and as near as can be to where they belong.

    Args:
        wanted (Mapping[K, float]): Where each belongs.
        gap (float): The least distance.
        low (float): No label is above this, if there is room.
        high (float): Nor below this.

    Returns:
        dict[K, float]: The places, from top to bottom.
    """
    order = sorted(wanted, key=lambda name: wanted[name])
    # Each block is a middle and the labels that stand evenly around it.
    blocks: list[tuple[float, list[K]]] = []
    for name in order:
        middle, members = wanted[name], [name]
        # Labels that would touch become one block, around the mean of where they belong.
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


def names_width(labels: Sequence[ModelLabel]) -> float:
    """Return the pixels that the longest of the short names needs."""
    return LETTER_WIDTH * max(letter_count(label.short) for label in labels)


def _within(middle: float, half: float, low: float, high: float) -> float:
    return max(min(middle, high - half), low + half)
