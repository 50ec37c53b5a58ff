# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Example images with boxes: what is drawn into them, and the words beside it."""

from collections.abc import Sequence
from typing import NamedTuple

from .box_labels import ASCENT, TOUCHING, Rectangle, place_labels
from .examples import ExampleImage, MatchedBoxes, MatchedClass
from .schema import Boxes, ClassPrediction, Results

FONT_UNITS = 3.6
"""Font size of labels in 1 % of the width of an image, which a page shows about 370 pixels wide:
13 pixels."""
MAX_LABELS = 20
"""At most so many boxes of an image are labelled, those with the best scores."""


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
        leader (tuple[float, float, float, float] | None): A line to words that stand apart from
            it: x and y of both ends.
    """

    css_class: str
    title: str
    x: float
    y: float
    width: float
    height: float
    tag: Tag | None = None
    leader: tuple[float, float, float, float] | None = None


class KeyEntry(NamedTuple):
    """What a number in an image stands for."""

    number: str
    name: str
    score: str


class LabelledBoxes(NamedTuple):
    """The boxes of an image.

    Attributes:
        boxes (list[DrawnBox]): Ground truth and prediction.
        key (list[KeyEntry]): Of the numbers in the image; empty if names stand there.
        rest (int): Number of boxes that have neither.
    """

    boxes: list[DrawnBox]
    key: list[KeyEntry]
    rest: int


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


def draw_boxes(
    results: Results,
    image: ExampleImage,
    matched: MatchedBoxes | MatchedClass,
    truth: Boxes | ClassPrediction,
) -> LabelledBoxes:
    """Return ground truth and predicted boxes; of a class, a frame that says if it is right.

    Predicted boxes have their names beside them. Where these have no room, numbers stand there,
    and the names follow in a list.
    """
    if isinstance(matched, MatchedClass):
        edge = max(image.width, image.height) / 100
        frame = Rectangle(edge, edge, image.width - edge, image.height - edge)
        css_class = 'right' if matched.right[0] else 'wrong'
        title = prediction_summary(results, matched, truth)
        return LabelledBoxes([_drawn_box(frame, css_class, title)], [], 0)
    drawn = [
        _drawn_box(_clip(box, image), 'truth', f'ground truth: {results.class_name(label)}')
        for box, label in zip(truth.bboxes, truth.labels, strict=True)
    ]
    names = [results.class_name(label) for label in matched.boxes.labels]
    signs = ['✓' if right else '✗' for right in matched.right]
    frames = [_clip(box, image) for box in matched.boxes.bboxes]
    texts = [f'{sign} {name}' for sign, name in zip(signs, names, strict=True)]
    places = _place(frames, texts, image)
    key = []
    if None in places:
        numbers = [f'{sign}{i + 1}' for i, sign in enumerate(signs)]
        scores = [f'{score:.2f}' for score in matched.boxes.scores]
        key = list(map(KeyEntry, numbers, names, scores))[:MAX_LABELS]
        texts, places = numbers, _place(frames, numbers, image, anywhere=True)
    for i, (frame, right) in enumerate(zip(frames, matched.right, strict=True)):
        css_class = 'right' if right else 'wrong'
        title = f'{css_class}: {names[i]}, score {matched.boxes.scores[i]:.2f}'
        box = _drawn_box(frame, css_class, title)
        drawn.append(_labelled(box, frame, texts[i], places[i], image))
    return LabelledBoxes(drawn, key, len(names) - len(key) if key else 0)


def _place(
    frames: Sequence[Rectangle], texts: Sequence[str], image: ExampleImage, anywhere: bool = False
) -> list[Rectangle | None]:
    size = image.width, image.height
    places = place_labels(
        frames[:MAX_LABELS], texts[:MAX_LABELS], size, FONT_UNITS * image.width / 100, anywhere
    )
    return places + [None] * (len(frames) - len(places))


def _clip(box: Sequence[float], image: ExampleImage) -> Rectangle:
    # Detectors may predict beyond the image, where a line would not be seen.
    left, right = (min(max(float(x), 0.0), float(image.width)) for x in (box[0], box[2]))
    top, bottom = (min(max(float(y), 0.0), float(image.height)) for y in (box[1], box[3]))
    return Rectangle(left, top, max(left, right), max(top, bottom))


def _drawn_box(frame: Rectangle, css_class: str, title: str) -> DrawnBox:
    width, height = frame.right - frame.left, frame.bottom - frame.top
    return DrawnBox(css_class, title, frame.left, frame.top, width, height)


def _labelled(
    box: DrawnBox, frame: Rectangle, text: str, place: Rectangle | None, image: ExampleImage
) -> DrawnBox:
    """Return the box with its words at a place, and a line to them if they stand apart."""
    if place is None:
        return box
    font_size = FONT_UNITS * image.width / 100
    # 0.15 font sizes: half of the room that place_labels leaves for the outlines.
    tag = Tag(text, place.left + 0.15 * font_size, place.top + ASCENT * font_size)
    leader = None
    if place.gap(frame) > TOUCHING * font_size:
        middle = (place.left + place.right) / 2, (place.top + place.bottom) / 2
        # To the point of the box that is nearest.
        x = min(max(middle[0], frame.left), frame.right)
        y = min(max(middle[1], frame.top), frame.bottom)
        leader = (*middle, x, y)
    return box._replace(tag=tag, leader=leader)
