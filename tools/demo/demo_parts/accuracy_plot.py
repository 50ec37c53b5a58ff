# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""One picture: clean and corrupted accuracy against parameters, a point for each seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .summary import ARMS, DENSE, TARGETS, model_name

SIDE, GAP, LEFT, TOP, BOTTOM = 420, 90, 80, 44, 100
COLOURS = {DENSE: '#444444', 'SGD': '#d1602b', 'SAM': '#2b78d1', 'AdaSAP': '#1f9d55'}
# So that points at the same size lie beside one another.
SHIFTS = {DENSE: 0, 'SGD': -14, 'SAM': 0, 'AdaSAP': 14}
PANELS = {'clean': 'clean', 'corrupted': 'mean of the corruptions'}
# The dense model is the whole of itself.
SIZES = {DENSE: 1.0, **{model_name(arm, share): share for share in TARGETS for arm in ARMS}}


@dataclass
class Axes:
    """Where shares of parameters and accuracies lie in a panel."""

    left: float
    low: float
    high: float

    def x(self, share: float) -> float:
        return self.left + SIDE * (share / 1.1)

    def y(self, accuracy: float) -> float:
        return TOP + SIDE * (self.high - accuracy) / (self.high - self.low)


def draw_accuracies(results: Mapping) -> Image.Image:
    """Draw the figures of the classification demo.

    Args:
        results (Mapping): As the demo's results.json has them.
    """
    canvas = Image.new('RGB', (LEFT + 2 * SIDE + GAP + 30, TOP + SIDE + BOTTOM), 'white')
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (figure, title) in enumerate(PANELS.items()):
        values = [v for model in results['models'].values() for v in model[figure]['values']]
        axes = Axes(LEFT + number * (SIDE + GAP), *_limits(values))
        _draw_frame(draw, font, axes, f'top-1, %: {title}')
        for name, model in results['models'].items():
            _draw_points(draw, axes, name, model[figure])
    _draw_legend(draw, font, canvas.width, canvas.height)
    return canvas


def _limits(values: Sequence[float], step: float = 0.05) -> tuple[float, float]:
    """Round accuracies below and above all values."""
    low, high = int(min(values) / step), int(max(values) / step) + 1
    return low * step, high * step


def _draw_frame(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, axes: Axes, title: str
) -> None:
    right, bottom = axes.left + SIDE, TOP + SIDE
    draw.text(((axes.left + right) / 2, TOP / 2), title, 'black', font, anchor='mm')
    for i in range(round((axes.high - axes.low) / 0.05) + 1):
        accuracy = axes.low + i * 0.05
        y = axes.y(accuracy)
        draw.line((axes.left, y, right, y), '#dddddd')
        draw.text((axes.left - 8, y), f'{100 * accuracy:.0f}', 'black', font, anchor='rm')
    draw.rectangle((axes.left, TOP, right, bottom), outline='#888888')
    for share in (*TARGETS, 1.0):
        draw.line((axes.x(share), bottom, axes.x(share), bottom + 5), '#888888')
        draw.text((axes.x(share), bottom + 16), f'{share:g}', 'black', font, anchor='mm')
    place = ((axes.left + right) / 2, bottom + 38)
    draw.text(place, 'share of the dense parameters', 'black', font, anchor='mm')


def _draw_points(draw: ImageDraw.ImageDraw, axes: Axes, name: str, figure: Mapping) -> None:
    """The seeds as circles and their mean as a line."""
    arm = name.partition('-')[0]
    x = axes.x(SIZES[name]) + SHIFTS[arm]
    mean = axes.y(figure['mean'])
    draw.line((x - 6, mean, x + 6, mean), COLOURS[arm], width=3)
    for value in figure['values']:
        y = axes.y(value)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=COLOURS[arm], width=2)


def _draw_legend(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, width: int, height: int
) -> None:
    y = height - 24
    entries = [*COLOURS, 'a circle is a seed, a line the mean']
    x = (width - sum(draw.textlength(text, font) + 44 for text in entries)) / 2
    for text in entries:
        if text in COLOURS:
            draw.ellipse((x, y - 5, x + 10, y + 5), fill=COLOURS[text])
        draw.text((x + 16, y), text, 'black', font, anchor='lm')
        x += draw.textlength(text, font) + 44
