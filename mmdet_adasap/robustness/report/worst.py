# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Where a model loses most, and what it saw there."""

from collections.abc import Sequence
from typing import NamedTuple

from .cells import CellFiles
from .marks import model_classes, named
from .markup import Markup, element, join
from .matching import SCORE, Found, Said, judge
from .pictures import Picture, Pictures
from .reading import Boxes, Example, Figure, Guess, Model, Results
from .words import hundredth

SHOWN = 3
"""Corruptions for each model."""


class WorstCell(NamedTuple):
    """The severity at which a corruption costs most."""

    corruption: str
    severity: int
    figure: Figure
    drop: float


class Scene(NamedTuple):
    """An example, clean and corrupted: what was seen, and what a model found."""

    example: Example
    clean: tuple[Picture, Found | Said]
    corrupted: tuple[Picture, Found | Said]


def worst_cells(results: Results, model: Model, count: int = SHOWN) -> list[WorstCell]:
    """The corruptions that a model loses most to, each at its worst severity."""
    clean = model.figures['clean'].value
    if clean is None:
        return []
    cells = [
        WorstCell(corruption, severity, figure, clean - figure.value)
        for corruption, row in model.cells.items()
        for severity, figure in row.items()
    ]
    worst: dict[str, WorstCell] = {}
    for cell in sorted(cells, key=lambda cell: (-cell.drop, cell.corruption, cell.severity)):
        worst.setdefault(cell.corruption, cell)
    return list(worst.values())[:count]


def worst(results: Results, files: CellFiles, pictures: Pictures) -> Markup | None:
    """The worst cells of each model with an example, what it found and the ground truth."""
    kinds = model_classes(results)
    parts = []
    for model in results.models.values():
        cells = worst_cells(results, model)
        if not cells:
            continue
        figures, fresh = [], list(results.examples)
        for cell in cells:
            # Another image in every cell, as long as there are any.
            found = scene(model, cell, fresh, files, pictures)
            found = found or scene(model, cell, results.examples, files, pictures)
            fresh = [each for each in fresh if not found or each != found.example]
            figures.append(_figure(results, cell, found))
        title = named(kinds[model.name], model.name)
        parts.append(
            element(
                'section', element('h3', title), element('div', *figures, class_='grid scenes')
            )
        )
    if not parts:
        return None
    shown = {picture.name: picture for picture in pictures.made.values()}
    drawn = [_stored(picture) for picture in shown.values()]
    store = element(
        'svg', element('defs', *drawn), width='0', height='0', class_='store', aria_hidden='true'
    )
    return join(store, _key(results) if drawn else None, *parts)


def scene(
    model: Model,
    cell: WorstCell,
    examples: Sequence[Example],
    files: CellFiles,
    pictures: Pictures,
) -> Scene | None:
    """The example where a cell takes most from a model, objects or the class; else the first."""
    key = (cell.corruption, cell.severity)
    clean, corrupted = files.examples(model.name, None), files.examples(model.name, key)
    found = [
        (example, judge(clean[example.number], example.truth), judge(there, example.truth))
        for example in examples
        if example.number in clean and (there := corrupted.get(example.number)) is not None
    ]

    def lost(one: tuple[Example, Found | Said, Found | Said]) -> tuple[int, int]:
        example, before, after = one
        objects = len(example.truth.labels) if isinstance(example.truth, Boxes) else 1
        return sum(before.right) - sum(after.right), objects

    for example, before, after in sorted(found, key=lost, reverse=True):
        plain = pictures.get(model, example, 'none', 0)
        # Not made for nothing: all that are made are in the page.
        spoilt = None if plain is None else pictures.get(model, example, *key)
        if spoilt is not None:
            return Scene(example, (plain, before), (spoilt, after))
    return None


def _figure(results: Results, cell: WorstCell, found: Scene | None) -> Markup:
    words = element(
        'figcaption',
        element('strong', f'{cell.corruption} {cell.severity}'),
        f': {hundredth(cell.figure.value)}, {hundredth(cell.drop)} less than clean',
    )
    if found is None:
        none = element('p', 'No example can be shown.', class_='note')
        return element('figure', words, none if results.examples else None)
    pair = [
        element(
            'div',
            draw(results, *side, found.example.truth, title),
            element('small', f'{title}: {_told(results, side[1], found.example.truth)}'),
        )
        for side, title in (
            (found.clean, 'clean'),
            (found.corrupted, f'{cell.corruption} {cell.severity}'),
        )
    ]
    return element('figure', words, element('div', *pair, class_='pair'))


def draw(
    results: Results,
    picture: Picture,
    found: Found | Said,
    truth: Boxes | Guess,
    title: str,
) -> Markup:
    """An image with boxes, in its pixels, or with a frame that says whether its class is right.

    Args:
        results (Results): Knows what classes are called.
        picture (Picture): The image, which must be in the page's store by its name.
        found (Found | Said): What a model found.
        truth (Boxes | Guess): The ground truth.
        title (str): What is seen.
    """
    unit = max(picture.width, picture.height) / 100
    if isinstance(found, Said):
        around = (unit, unit, picture.width - unit, picture.height - unit)
        kind = 'right' if found.right[0] else 'wrong'
        drawn = [_box(around, kind, _told(results, found, truth), picture)]
    else:
        drawn = _boxes(results, picture, found, truth, unit)
    return element(
        'svg',
        element('title', title),
        element('use', href=f'#{picture.name}'),
        *drawn,
        viewBox=f'0 0 {picture.width} {picture.height}',
        role='img',
        class_='scene',
        style=f'--unit:{unit:.3f}px',
    )


def _boxes(
    results: Results, picture: Picture, found: Found, truth: Boxes, unit: float
) -> list[Markup]:
    boxes = [
        _box(box, 'truth', f'ground truth: {_class(results, label)}', picture)
        for box, label in zip(truth.bboxes, truth.labels, strict=True)
    ]
    for box, label, score, right in zip(*found.boxes, found.right, strict=True):
        name = _class(results, label)
        kind, sign = ('right', '✓') if right else ('wrong', '✗')
        boxes.append(_box(box, kind, f'{kind}: {name}, score {score:.2f}', picture))
        boxes.append(_label(box, kind, f'{sign} {name}', unit, picture))
    return boxes


def _box(box: Sequence[float], kind: str, title: str, picture: Picture) -> Markup:
    left, right = (min(max(x, 0.0), picture.width) for x in (box[0], box[2]))
    top, bottom = (min(max(y, 0.0), picture.height) for y in (box[1], box[3]))
    place = dict(
        x=float(left),
        y=float(top),
        width=float(max(right - left, 0)),
        height=float(max(bottom - top, 0)),
    )
    return element(
        'g',
        element('title', title),
        element('rect', **place, class_='halo'),
        element('rect', **place, class_=kind),
    )


def _label(box: Sequence[float], kind: str, word: str, unit: float, picture: Picture) -> Markup:
    x = min(max(box[0], 0.0) + unit, picture.width - len(word) * 3.7 * unit)
    above, below = box[1] - 1.6 * unit, box[3] + 5.6 * unit
    # A wrong box often lies on a right one, so their words stand at different ends.
    y = below if kind == 'wrong' else above if box[1] > 8 * unit else box[1] + 6 * unit
    y = min(max(y, 6 * unit), picture.height - unit)
    return element('text', word, x=float(max(x, unit)), y=float(y), class_=f'tag {kind}')


def _stored(picture: Picture) -> Markup:
    return element(
        'image',
        id=picture.name,
        href=picture.uri,
        width=picture.width,
        height=picture.height,
        preserveAspectRatio='none',
    )


def _key(results: Results) -> Markup:
    if any(isinstance(example.truth, Guess) for example in results.examples):
        return element(
            'p',
            'As each model saw them, resized and cropped. ✓ right, ✗ wrong, with the score. Of '
            'the examples that were kept, and that stand in no cell before it, one that loses its '
            'class is shown where there is one: it is worse than the rule.',
            class_='note key',
        )
    return element(
        'p',
        element('span', class_='line truth'),
        'ground truth  ',
        element('span', class_='line right'),
        '✓ found, of the right class  ',
        element('span', class_='line wrong'),
        f'✗ found, but wrong. Boxes with a score from {SCORE:g} on. Of the examples '
        f'that were kept, and that stand in no cell before it, the one that loses most objects '
        f'is shown: it is worse than the rule.',
        class_='note key',
    )


def _told(results: Results, found: Found | Said, truth: Boxes | Guess) -> str:
    if isinstance(found, Found):
        return _counted(found, truth)
    guess, (right,) = found
    text = f'{"✓" if right else "✗"} {_class(results, guess.label)}'
    text += '' if guess.score is None else f' {guess.score:.2f}'
    return text if right else f'{text} (it is {_class(results, truth.label)})'


def _counted(found: Found, truth: Boxes) -> str:
    hits = sum(found.right)
    wrong = len(found.right) - hits
    text = f'{hits} of {len(truth.labels)} found'
    return f'{text}, {wrong} wrong' if wrong else text


def _class(results: Results, label: int) -> str:
    known = 0 <= label < len(results.classes)
    return results.classes[label] if known else f'class {label}'
