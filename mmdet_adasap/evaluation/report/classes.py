# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""P of each class, clean and under corruption."""

from .colours import sequential_class
from .marks import model_classes, named
from .markup import Markup, element
from .reading import ClassFigures, Results
from .words import NONE, hundredth

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
    """Classes in rows; clean mAP and mPC of each model in columns."""
    names = class_names(results)
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
    return element('div', table, class_='wide', tabindex='0', role='region', aria_label='Classes')
