# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""P of each class, clean and under corruption."""

from .colours import sequential_class
from .marks import model_classes, named
from .markup import Markup, element, join
from .reading import ClassFigures, Results
from .words import NONE, hundredth

SHOWN = 60
"""Of more classes those with the lowest mPC are shown."""
NO_OBJECTS = ClassFigures(None, None, None)


def class_names(results: Results) -> list[str]:
    """Classes, the one with the lowest mPC of the reference first."""
    rows = {name: None for model in results.models.values() for name in model.per_class}
    own = results.models[results.reference].per_class
    place = {name: i for i, name in enumerate(results.classes)}

    def key(name: str) -> tuple:
        mpc = own.get(name, NO_OBJECTS).mpc
        return mpc is None, mpc or 0.0, place.get(name, len(place)), name

    return sorted(rows, key=key)


def class_table(results: Results) -> Markup | None:
    """Classes in rows; clean P and mPC of each model in columns. Of many the hardest."""
    every = class_names(results)
    names = every[:SHOWN]
    models = [model for model in results.models.values() if model.per_class]
    if not names or not models:
        return None
    kinds = model_classes(results)
    values = [one.mpc or 0 for model in models for one in model.per_class.values()]
    highest = max(values) or 1.0
    over = element(
        'tr',
        element('th', 'class', scope='col', rowspan='2'),
        *(
            element(
                'th', named(kinds[m.name], m.name), scope='colgroup', colspan='2', class_='over'
            )
            for m in models
        ),
    )
    pair = ('clean', 'mPC')
    under = element(
        'tr', *(element('th', word, scope='col', class_='number') for _ in models for word in pair)
    )
    rows = []
    for name in names:
        cells = []
        for model in models:
            one = model.per_class.get(name, NO_OBJECTS)
            cells.append(element('td', hundredth(one.clean), class_='number'))
            if one.mpc is None:
                cells.append(element('td', NONE, class_='number', title='no objects'))
                continue
            kind = sequential_class(one.mpc, highest)
            cells.append(element('td', hundredth(one.mpc), class_=f'number {kind}'))
        rows.append(element('tr', element('th', name, scope='row'), *cells))
    table = element(
        'table', element('thead', over, under), element('tbody', *rows), class_='classes'
    )
    shown = element('div', table, class_='wide', tabindex='0', role='region', aria_label='Classes')
    if len(every) == len(names):
        return shown
    more = f'The {len(names)} of {len(every)} classes with the lowest mPC of {results.reference}.'
    return join(element('p', more, class_='note'), shown)
