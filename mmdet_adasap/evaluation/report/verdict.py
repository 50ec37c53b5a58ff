# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""In words: what the intervals tell apart, and what they do not."""

from collections.abc import Sequence

from .reading import COMPARED, Figure, Model, Results
from .words import NAMES, spoken, with_ends

MANY = 6
"""From so many intervals on a reader is told that some miss 0 by chance."""


def verdict(results: Results) -> list[str]:
    """Sentences for below the table of models; a model's own come one after the other."""
    models = [sentence for model in results.others for sentence in _compared(results, model)]
    return [*(models or _alone(results)), *_caveats(results)]


def _compared(results: Results, model: Model) -> list[str]:
    figures = {key: model.difference.get(key) for key in COMPARED}
    known = {key: one for key, one in figures.items() if one and one.value is not None}
    if not known:
        return [f'{model.name} is not compared with {results.reference}: figures are missing.']
    without = [key for key, one in known.items() if one.low is None]
    if len(without) == len(known):
        listed = _listed(known, list(known))
        return [
            f'{model.name} minus {results.reference}: {listed}. Without intervals it is not '
            f'known whether that is more than chance.'
        ]
    sentences = []
    for sign, word in ((1, 'higher'), (-1, 'lower')):
        keys = [key for key, one in known.items() if one.sure == sign]
        if keys:
            sentences.append(
                f'{model.name} has {word} {_listed(known, keys)} than {results.reference}.'
            )
    same = [key for key, one in known.items() if one.low is not None and one.sure == 0]
    if same:
        what = (
            f'Its {_listed(known, same)}' if sentences else f'{model.name}: {_listed(known, same)}'
        )
        sentences.append(f'{what} cannot be told apart from {_that(same)} of {results.reference}.')
    return sentences


def _alone(results: Results) -> list[str]:
    figure = next(iter(results.models.values())).figures['mPC']
    text = 'There is one model, so that nothing is compared.'
    if figure.low is not None:
        text += f' Its mPC is {with_ends(figure)}.'
    return [text]


def _caveats(results: Results) -> list[str]:
    drawn = [
        one for model in results.others for one in model.difference.values() if one.low is not None
    ]
    intervals = drawn or [
        model for model in results.models.values() if model.figures['clean'].low is not None
    ]
    if not intervals:
        return []
    resamples = (results.protocol.get('bootstrap') or {}).get('resamples')
    text = (
        f'Intervals are 95 %, from {resamples} resamples of the {results.images} test images. They '
        f'say what other images of this kind would change, not what training again would.'
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
    return [text]


def _listed(figures: dict[str, Figure], keys: Sequence[str]) -> str:
    return spoken([f'{NAMES[key]} ({with_signs(figures[key])})' for key in keys])


def with_signs(figure: Figure) -> str:
    """A difference and its interval, for parentheses."""
    text = with_ends(figure, signed=True)
    return text.replace(' (', '; ').rstrip(')') if figure.low is not None else text


def _that(keys: Sequence[str]) -> str:
    return 'that' if len(keys) == 1 else 'those'
