# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The cells where a model loses most, each with an example of what it saw and predicted there."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .axes import ModelLabel, model_labels
from .cells import CellFiles
from .examples import MIN_SCORE, ExampleImage, ExampleImages, MatchedBoxes, MatchedClass, match
from .schema import Boxes, ClassPrediction, Estimate, Example, ModelResults, Results
from .text import format_percent

MAX_CELLS = 3
"""Cells of each model: three stand side by side in a page, and each has two images."""
CLASS_KEY = (
    'As each model saw them, resized and cropped. ✓ right, ✗ wrong, with the score. Of the '
    'examples that were kept, and that stand in no cell before it, one that loses its class is '
    'shown where there is one: it is worse than the rule.'
)
BOX_KEY = (
    f'✗ found, but wrong. Boxes with a score from {MIN_SCORE:g} on. Of the examples that were '
    'kept, and that stand in no cell before it, the one that loses most objects is shown: it is '
    'worse than the rule.'
)


class WorstCell(NamedTuple):
    """The severity at which a model loses most to a corruption.

    Attributes:
        estimate (Estimate): P there, a fraction.
        drop (float): Clean P minus that.
    """

    corruption: str
    severity: int
    estimate: Estimate
    drop: float


class Tag(NamedTuple):
    """Words in an image, at x and y in its pixels."""

    text: str
    x: float
    y: float


class DrawnBox(NamedTuple):
    """A rectangle in an image, in its pixels.

    Attributes:
        css_class (str): 'truth', 'right' or 'wrong'.
        title (str): The tooltip.
        tag (Tag | None): Words beside it.
    """

    css_class: str
    title: str
    x: float
    y: float
    width: float
    height: float
    tag: Tag | None = None


class ExampleView(NamedTuple):
    """An example under one condition, with what a model predicted.

    Attributes:
        title (str): The condition.
        caption (str): The prediction in words.
        image (ExampleImage): The image.
        unit (float): 1 % of its longer side in pixels, by which words and frames scale.
        boxes (list[DrawnBox]): Ground truth and prediction.
    """

    title: str
    caption: str
    image: ExampleImage
    unit: float
    boxes: list[DrawnBox]


class WorstCellFigure(NamedTuple):
    """A worst cell, with an example clean and corrupted.

    Attributes:
        name (str): The condition.
        text (str): What the model loses there.
        views (list[ExampleView]): The example, clean and corrupted; empty if none can be shown.
    """

    name: str
    text: str
    views: list[ExampleView]


class WorstCells(NamedTuple):
    """The worst cells of all models.

    Attributes:
        images (list[ExampleImage]): Every image of the views, once.
        key (str): Explains the images; empty without any.
        has_examples (bool): Whether the run kept any.
        has_boxes (bool): Whether they have boxes, whose colours need explaining.
        models (list[tuple[ModelLabel, list[WorstCellFigure]]]): The figures of each model.
    """

    images: list[ExampleImage]
    key: str
    has_examples: bool
    has_boxes: bool
    models: list[tuple[ModelLabel, list[WorstCellFigure]]]


class _MatchedExample(NamedTuple):
    """An example with the predictions of a model for it, clean and corrupted."""

    example: Example
    clean: MatchedBoxes | MatchedClass
    corrupted: MatchedBoxes | MatchedClass

    @property
    def loss(self) -> tuple[int, int]:
        """How much is lost: right predictions, then (of equal losses) the number of objects."""
        truth = self.example.truth
        objects = len(truth.labels) if isinstance(truth, Boxes) else 1
        return sum(self.clean.right) - sum(self.corrupted.right), objects


def find_worst_cells(
    results: Results, model: ModelResults, count: int = MAX_CELLS
) -> list[WorstCell]:
    """Return the corruptions that a model loses most to, each at its worst severity.

    Args:
        results (Results): The results.
        model (ModelResults): The model.
        count (int): How many at most. Defaults to ``MAX_CELLS``.

    Returns:
        list[WorstCell]: The largest drop first; empty if clean P is not known.
    """
    clean = model.metrics['clean'].value
    if clean is None:
        return []
    cells = [
        WorstCell(corruption, severity, estimate, clean - estimate.value)
        for corruption, row in model.cells.items()
        for severity, estimate in row.items()
    ]
    worst: dict[str, WorstCell] = {}
    # The names in the key make ties, as of a model at 0 everywhere, come out alike every time.
    for cell in sorted(cells, key=lambda cell: (-cell.drop, cell.corruption, cell.severity)):
        worst.setdefault(cell.corruption, cell)
    return list(worst.values())[:count]


def worst_cells(results: Results, files: CellFiles, images: ExampleImages) -> WorstCells | None:
    """Return the worst cells of each model, with examples.

    Args:
        results (Results): The results.
        files (CellFiles): The cells, with the predictions.
        images (ExampleImages): Where images are taken from; what is loaded is in the page.

    Returns:
        WorstCells | None: None if no model has any.

    Raises:
        MalformedResultsError: If the file of a cell is malformed.
    """
    labels = model_labels(results)
    models = []
    for model in results.models.values():
        figures, unused = [], list(results.examples)
        for cell in find_worst_cells(results, model):
            # Another image in every cell, as long as there are any.
            found = _select_example(model, cell, unused, files, images)
            found = found or _select_example(model, cell, results.examples, files, images)
            if found:
                unused = [example for example in unused if example != found.example]
            figures.append(_figure(results, model, cell, found, images))
        if figures:
            models.append((labels[model.name], figures))
    if not models:
        return None
    # By name: equal images of classifiers are loaded from several files.
    loaded = {image.name: image for image in images.loaded.values()}
    has_boxes = not any(isinstance(one.truth, ClassPrediction) for one in results.examples)
    key = (BOX_KEY if has_boxes else CLASS_KEY) if loaded else ''
    return WorstCells(list(loaded.values()), key, bool(results.examples), has_boxes, models)


def prediction_summary(
    results: Results, matched: MatchedBoxes | MatchedClass, truth: Boxes | ClassPrediction
) -> str:
    """Return in words how right a prediction is."""
    if isinstance(matched, MatchedBoxes):
        hits = sum(matched.right)
        wrong = len(matched.right) - hits
        text = f'{hits} of {len(truth.labels)} found'
        return f'{text}, {wrong} wrong' if wrong else text
    prediction, (right,) = matched
    text = f'{"✓" if right else "✗"} {results.class_name(prediction.label)}'
    text += '' if prediction.score is None else f' {prediction.score:.2f}'
    return text if right else f'{text} (it is {results.class_name(truth.label)})'


def _select_example(
    model: ModelResults,
    cell: WorstCell,
    examples: Sequence[Example],
    files: CellFiles,
    images: ExampleImages,
) -> _MatchedExample | None:
    """Return the example where a cell takes most from a model, of those that can be shown."""
    condition = (cell.corruption, cell.severity)
    clean, corrupted = files.examples(model.name, None), files.examples(model.name, condition)
    matched = [
        _MatchedExample(
            example, match(clean[example.number], example.truth), match(prediction, example.truth)
        )
        for example in examples
        if example.number in clean and (prediction := corrupted.get(example.number)) is not None
    ]
    for one in sorted(matched, key=lambda one: one.loss, reverse=True):
        # The corrupted image is not loaded for nothing: all that are loaded are in the page.
        if images.get(model, one.example, 'none', 0) is None:
            continue
        if images.get(model, one.example, *condition) is not None:
            return one
    return None


def _figure(
    results: Results,
    model: ModelResults,
    cell: WorstCell,
    found: _MatchedExample | None,
    images: ExampleImages,
) -> WorstCellFigure:
    name = f'{cell.corruption} {cell.severity}'
    text = f': {format_percent(cell.estimate.value)}, {format_percent(cell.drop)} less than clean'
    views = []
    if found is not None:
        for title, matched, condition in (
            ('clean', found.clean, ('none', 0)),
            (name, found.corrupted, (cell.corruption, cell.severity)),
        ):
            image = images.get(model, found.example, *condition)
            truth = found.example.truth
            unit = max(image.width, image.height) / 100
            caption = f'{title}: {prediction_summary(results, matched, truth)}'
            boxes = list(_drawn_boxes(results, image, matched, truth, unit))
            views.append(ExampleView(title, caption, image, unit, boxes))
    return WorstCellFigure(name, text, views)


def _drawn_boxes(
    results: Results,
    image: ExampleImage,
    matched: MatchedBoxes | MatchedClass,
    truth: Boxes | ClassPrediction,
    unit: float,
) -> Iterator[DrawnBox]:
    """Return ground truth and predicted boxes; of a class, a frame that says if it is right."""
    if isinstance(matched, MatchedClass):
        frame = (unit, unit, image.width - unit, image.height - unit)
        css_class = 'right' if matched.right[0] else 'wrong'
        yield _drawn_box(frame, css_class, prediction_summary(results, matched, truth), image)
        return
    for box, label in zip(truth.bboxes, truth.labels, strict=True):
        yield _drawn_box(box, 'truth', f'ground truth: {results.class_name(label)}', image)
    for box, label, score, right in zip(*matched.boxes, matched.right, strict=True):
        name = results.class_name(label)
        css_class, sign = ('right', '✓') if right else ('wrong', '✗')
        title = f'{css_class}: {name}, score {score:.2f}'
        tag = _place_tag(box, css_class, f'{sign} {name}', unit, image)
        yield _drawn_box(box, css_class, title, image, tag)


def _drawn_box(
    box: Sequence[float], css_class: str, title: str, image: ExampleImage, tag: Tag | None = None
) -> DrawnBox:
    # Detectors may predict beyond the image, where a line would not be seen.
    left, right = (min(max(float(x), 0.0), float(image.width)) for x in (box[0], box[2]))
    top, bottom = (min(max(float(y), 0.0), float(image.height)) for y in (box[1], box[3]))
    width, height = max(right - left, 0.0), max(bottom - top, 0.0)
    return DrawnBox(css_class, title, left, top, width, height, tag)


def _place_tag(
    box: Sequence[float], css_class: str, words: str, unit: float, image: ExampleImage
) -> Tag:
    """Place words beside a box and inside the image; their letters are 5.6 units high (.tag)."""
    # 3.7 units are about the width of a letter.
    x = min(max(box[0], 0.0) + unit, image.width - len(words) * 3.7 * unit)
    above, below = box[1] - 1.6 * unit, box[3] + 5.6 * unit
    # Inside the box, where there is no room above it.
    top = above if box[1] > 8 * unit else box[1] + 6 * unit
    # A wrong box often lies on a right one, so their words stand at different ends.
    y = below if css_class == 'wrong' else top
    y = min(max(y, 6 * unit), image.height - unit)
    return Tag(words, float(max(x, unit)), float(y))
