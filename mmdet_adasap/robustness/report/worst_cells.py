# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The worst cells of each model, each with an example of what it saw and predicted there."""

from collections.abc import Sequence
from typing import NamedTuple

from .axes import ModelLabel, model_labels
from .cells import CellFiles
from .examples import MIN_SCORE, ExampleImage, ExampleImages, MatchedBoxes, MatchedClass, match
from .scenes import FONT_UNITS, LabelledBoxes, draw_boxes, prediction_summary
from .schema import Boxes, ClassPrediction, Estimate, Example, ModelResults, Results
from .text import compare_with_clean, format_percent

MAX_CELLS = 3
"""Cells of each model: three stand side by side in a page, and each has two images."""
CLASS_KEY = 'As each model saw them, resized and cropped. ✓ right, ✗ wrong, with the score.'
BOX_KEY = f'✗ found, but wrong. Boxes with a score from {MIN_SCORE:g} on.'
CLASS_CHOICE = (
    ' Of the examples that were kept, one that loses its class is shown where there is one, and '
    'another in each cell as long as there are any: it is worse than the rule.'
)
BOX_CHOICE = (
    ' Of the examples that were kept, the one that loses most objects is shown, and another in '
    'each cell as long as there are any: it is worse than the rule.'
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


class ExampleView(NamedTuple):
    """An example under one condition, with what a model predicted.

    Attributes:
        title (str): The condition.
        caption (str): The prediction in words.
        image (ExampleImage): The image.
        font_size (float): Size of words in it, in its pixels.
        drawn (LabelledBoxes): Ground truth and prediction.
    """

    title: str
    caption: str
    image: ExampleImage
    font_size: float
    drawn: LabelledBoxes


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
    key = ''
    if loaded:
        key = BOX_KEY if has_boxes else CLASS_KEY
        # Of a single example nothing was chosen.
        if len(results.examples) > 1:
            key += BOX_CHOICE if has_boxes else CLASS_CHOICE
    return WorstCells(list(loaded.values()), key, bool(results.examples), has_boxes, models)


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
    text = f': {format_percent(cell.estimate.value)}, {compare_with_clean(cell.drop)}'
    views = []
    if found is not None:
        for title, matched, condition in (
            ('clean', found.clean, ('none', 0)),
            (name, found.corrupted, (cell.corruption, cell.severity)),
        ):
            image = images.get(model, found.example, *condition)
            truth = found.example.truth
            caption = f'{title}: {prediction_summary(results, matched, truth)}'
            drawn = draw_boxes(results, image, matched, truth)
            font_size = FONT_UNITS * image.width / 100
            views.append(ExampleView(title, caption, image, font_size, drawn))
    return WorstCellFigure(name, text, views)
