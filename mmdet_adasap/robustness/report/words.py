# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Figures as a report writes them."""

from collections.abc import Sequence

from .reading import Figure, Results

NONE = '\N{EN DASH}'
MINUS = '\N{MINUS SIGN}'
METRICS = {
    'accuracy/top1': 'top-1',
    **dict.fromkeys(('pascal_voc/mAP', 'coco/bbox_mAP', 'coco/segm_mAP'), 'mAP'),
}
"""What P is called; by the end of its key where it is another one."""


def metric(results: Results) -> str:
    """What P is called."""
    key = results.protocol['metric']
    return METRICS.get(key) or key.rpartition('/')[2]


def names(results: Results) -> dict[str, str]:
    """What the figures that are compared are called."""
    return {'clean': f'clean {metric(results)}', 'mPC': 'mPC', 'rPC': 'rPC'}


def hundredth(value: float | None, signed: bool = False) -> str:
    """A fraction times 100 with one decimal, and the sign of a difference."""
    return decimal(None if value is None else 100 * value, signed)


def decimal(value: float | None, signed: bool = False) -> str:
    """A number with one decimal."""
    if value is None:
        return NONE
    shown = f'{abs(value):.1f}'
    if not float(shown):
        return shown
    return f'{MINUS if value < 0 else "+" if signed else ""}{shown}'


def ends(figure: Figure, signed: bool = False) -> str:
    """The interval of a figure, times 100; empty where it has none."""
    if figure.low is None:
        return ''
    return f'{hundredth(figure.low, signed)} to {hundredth(figure.high, signed)}'


def with_ends(figure: Figure, signed: bool = False) -> str:
    """A figure with its interval in parentheses."""
    interval = ends(figure, signed)
    return hundredth(figure.value, signed) + (f' ({interval})' if interval else '')


def quantity(value: float | None) -> str:
    """A positive number with three significant digits, or all of the whole ones."""
    if value is None:
        return NONE
    return f'{value:,.0f}' if value >= 1000 else f'{value:#.3g}'.rstrip('.')


def spoken(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    names = list(names)
    if len(names) < 2:
        return ''.join(names)
    return f'{", ".join(names[:-1])} and {names[-1]}'


def shortened(text: str, length: int) -> str:
    """Text of at most so many characters; its middle goes first, as names differ at both ends."""
    if len(text) <= length:
        return text
    kept = length - 1
    return f'{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}'
