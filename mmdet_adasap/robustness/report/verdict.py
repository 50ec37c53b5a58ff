# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""In words: what the intervals tell apart, and what they do not."""

from collections.abc import Iterable
from typing import NamedTuple

from .reading import COMPARED, Figure, Model, Results
from .words import names, spoken, with_ends

MANY = 6
"""From so many intervals on a reader is told that some miss 0 by chance."""


class Paragraph(NamedTuple):
    """What is said, and the model that it begins with, if any."""

    words: str
    model: str | None = None


def verdict(results: Results) -> list[Paragraph]:
    """One paragraph for each model that is compared."""
    models = [Paragraph(_compared(results, model), model.name) for model in results.others]
    return models or [Paragraph(_alone(results))]


def _compared(results: Results, model: Model) -> str:
    figures = {key: model.difference.get(key) for key in COMPARED}
    known = {key: one for key, one in figures.items() if one and one.value is not None}
    reference, called = results.reference, names(results)

    def listed(keys: Iterable[str]) -> str:
        return spoken([f'{called[key]} ({with_signs(known[key])})' for key in keys])

    if not known:
        return f'is not compared with {reference}: figures are missing.'
    if all(one.low is None for one in known.values()):
        return (
            f'minus {reference}: {listed(known)}. Without intervals it is not known '
            f'whether that is more than chance.'
        )
    signs = ((1, 'higher'), (-1, 'lower'))
    sure = {word: [k for k, one in known.items() if one.sure == sign] for sign, word in signs}
    told = [f'{word} {listed(keys)}' for word, keys in sure.items() if keys]
    same = [key for key, one in known.items() if one.low is not None and one.sure == 0]
    parts = [f'has {" and ".join(told)} than {reference}.'] if told else []
    if same:
        that = 'that' if len(same) == 1 else 'those'
        parts.append(
            f'Its {listed(same)} cannot be told apart from {that} of {reference}.'
            if told
            else f'cannot be told apart from {reference} by {listed(same)}.'
        )
    return ' '.join(parts)


def _alone(results: Results) -> str:
    figure = next(iter(results.models.values())).figures['mPC']
    text = 'There is one model, so that nothing is compared.'
    if figure.low is not None:
        text += f' Its mPC is {with_ends(figure)}.'
    return text


def caveats(results: Results) -> str | None:
    """What the intervals do not say."""
    drawn = [
        one
        for model in results.others
        for figures in (model.difference, *(shift.difference for shift in model.shifts.values()))
        for one in figures.values()
        if one.low is not None
    ]
    intervals = drawn or [
        model for model in results.models.values() if model.figures['clean'].low is not None
    ]
    if not intervals:
        return None
    resamples = (results.protocol.get('bootstrap') or {}).get('resamples')
    text = (
        f'Intervals are 95 %, from {resamples} resamples of the {results.images} test images'
        f'{" and of those of each other set" if results.sets else ""}. '
        f'They say what other images of this kind would change, not what training again would.'
    )
    if drawn:
        text += ' What cannot be told apart is not thereby equal.'
    if len(results.others) > 1:
        text += f' Models are compared with {results.reference} alone, not with each other.'
    if len(drawn) >= MANY:
        text += (
            f' Of {len(drawn)} such intervals one in twenty misses 0 by chance where there is no '
            f'difference.'
        )
    return text


def with_signs(figure: Figure) -> str:
    """A difference and its interval, for parentheses."""
    text = with_ends(figure, signed=True)
    return text.replace(' (', '; ').rstrip(')') if figure.low is not None else text
