# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The pictures that the demos end with: detections in a test image, accuracy against size."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageDraw, ImageFont

from mmdet_adasap.robustness.corruptions import corrupt, corruption_seed

from .tables import ARMS, DENSE, TARGETS, model_name

if TYPE_CHECKING:
    # The demo of classifiers runs where mmdet is not installed.
    from mmdet.datasets import VOCDataset


class Layout(NamedTuple):
    """Pixels of a picture: side of a panel, space between panels, and margins."""

    side: int
    gap: int
    left: int
    top: int
    bottom: int


GRID = Layout(side=240, gap=6, left=140, top=30, bottom=30)
TRUTH, RIGHT, WRONG = '#ffd400', '#2fe04a', '#ff4d4d'
# VOC's rule for a right box.
MIN_IOU = 0.5

PLOT = Layout(side=420, gap=90, left=80, top=44, bottom=100)
PLOT_RIGHT = 30
COLOURS = {DENSE: '#444444', 'SGD': '#d1602b', 'SAM': '#2b78d1', 'AdaSAP': '#1f9d55'}
# Pixels to the side, so that points at the same size lie beside one another.
SHIFTS = {DENSE: 0, 'SGD': -14, 'SAM': 0, 'AdaSAP': 14}
PANELS = {'clean': 'clean', 'corrupted': 'mean of the corruptions'}
# Shares of the dense parameters; the dense model is the whole of itself.
SIZES = {DENSE: 1.0, **{model_name(arm, share): share for share in TARGETS for arm in ARMS}}
# The axis ends a little to the right of the dense model.
MAX_SHARE = 1.1
# Accuracy from one line of the plot to the next.
TICK = 0.05


class Box(NamedTuple):
    """A box to draw: corners (x1, y1, x2, y2), label, colour, and what follows its caption."""

    corners: np.ndarray
    label: int
    colour: str
    suffix: str


def clean_test_set(config: Path) -> 'VOCDataset':
    """Build the test set of a detector's config, without corruptions."""
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules()
    return DATASETS.build(Config.fromfile(config).test_dataloader.dataset)


def choose_example(examples: Sequence[Mapping], objects: int = 3) -> Mapping:
    """Return the first example with enough objects, else the one with the most.

    Args:
        examples (Sequence[Mapping]): As results.json of tools/robustness.py has them.
        objects (int): How many are enough. Defaults to 3.
    """
    counts = [len(example['ground_truth']['labels']) for example in examples]
    enough = [i for i, count in enumerate(counts) if count >= objects]
    return examples[enough[0] if enough else int(np.argmax(counts))]


def draw_detections(
    dataset: 'VOCDataset',
    results: Path,
    corruptions: Sequence[str],
    severity: int,
    min_score: float = 0.3,
) -> Image.Image:
    """Draw a test image, clean and corrupted, with what each model detects in it.

    Args:
        dataset (VOCDataset): The clean test set.
        results (Path): Folder that tools/robustness.py has written.
        corruptions (Sequence[str]): Those to show, beside the clean image.
        severity (int): Their severity.
        min_score (float): Detections below it are left out. Defaults to 0.3, as in mmdet's
            visualizer.
    """
    found = json.loads((results / 'results.json').read_text())
    example = choose_example(found['examples'])
    index, conditions = example['number'], ['none', *corruptions]
    cells = {name: _read_cell(results, name, severity) for name in conditions}
    info = dataset.get_data_info(index)
    truth, names = _true_boxes(dataset, index), dataset.metainfo['classes']
    clean = np.asarray(Image.open(info['img_path']).convert('RGB'))
    images = {name: _corrupted(clean, name, severity, info['img_id']) for name in conditions}

    step = GRID.side + GRID.gap
    height = GRID.top + (1 + len(found['models'])) * step + GRID.bottom
    canvas = Image.new('RGB', (GRID.left + len(conditions) * step, height), 'white')
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    rows = ['ground truth', *found['models']]
    for column, condition in enumerate(conditions):
        title = 'clean' if condition == 'none' else f'{condition} {severity}'
        x = GRID.left + column * step
        draw.text((x + GRID.side // 2, GRID.top // 2), title, 'black', font, anchor='mm')
        for row, model in enumerate(rows):
            y = GRID.top + row * step
            cell = cells[condition]
            boxes = _detected_boxes(cell, model, index, min_score, truth) if row else truth
            canvas.paste(_panel(images[condition], boxes, names), (x, y))
            if not column:
                place = (GRID.left // 2, y + GRID.side // 2)
                draw.text(place, model, 'black', font, anchor='mm')
    legend = (
        f'Test image {info["img_id"]}, one with three objects or more. Detections with a '
        f'score of {min_score} or more; green: right digit, IoU {MIN_IOU} or more; red: wrong.'
    )
    draw.text((GRID.left, height - GRID.bottom // 2), legend, 'black', font, anchor='lm')
    return canvas


def _true_boxes(dataset: 'VOCDataset', index: int) -> list[Box]:
    instances = dataset.get_data_info(index)['instances']
    return [Box(np.array(i['bbox'], float), i['bbox_label'], TRUTH, '') for i in instances]


def _read_cell(results: Path, condition: str, severity: int) -> dict:
    name = 'clean' if condition == 'none' else f'{condition}-{severity}'
    return json.loads((results / 'cells' / f'{name}.json').read_text())


def _detected_boxes(
    cell: Mapping, model: str, index: int, min_score: float, truth: Sequence[Box]
) -> list[Box]:
    """Return the detections of an image, best last, so that it is drawn over the others.

    As in the benchmark, an object is found once: a second detection of it is wrong.
    """
    found = cell['models'][model]['examples'][str(index)]
    boxes, taken = [], set()
    rows = zip(found['bboxes'], found['scores'], found['labels'], strict=True)
    for corners, score, label in rows:  # best first
        if score < min_score:
            break
        box = np.array(corners)
        hits = [
            number
            for number, true in enumerate(truth)
            if true.label == label and _iou(box, true.corners) >= MIN_IOU and number not in taken
        ]
        taken.update(hits[:1])
        boxes.insert(0, Box(box, label, RIGHT if hits else WRONG, f' {score:.2f}'))
    return boxes


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return float(np.prod(size) / (sum(areas) - np.prod(size)))


def _corrupted(image: np.ndarray, condition: str, severity: int, image_id: str) -> np.ndarray:
    """Return the image as CorruptedVOCDataset with its default seed, 0, shows it."""
    if condition == 'none':
        return image
    key = corruption_seed(0, image_id, condition, severity)
    return corrupt(image, condition, severity, key)


def _panel(image: np.ndarray, boxes: Sequence[Box], names: Sequence[str]) -> Image.Image:
    height, width = image.shape[:2]
    scale = GRID.side / max(height, width)
    panel = Image.fromarray(image).resize((round(width * scale), round(height * scale)))
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(size=13)
    for box in boxes:
        draw.rectangle(tuple(box.corners * scale), outline=box.colour, width=2)
    captions = []
    # The best detection, which is last, has the first choice of a place.
    for box in reversed(boxes):
        text = f'{names[box.label]}{box.suffix}'
        size = draw.textbbox((0, 0), text, font, anchor='lt')
        place = _place_caption(box.corners * scale, size, [other for other, *_ in captions])
        captions.append((place, text, box.colour))
    for place, text, colour in reversed(captions):
        draw.rectangle(place, fill=colour)
        draw.text((place[0] + 1, place[1] + 1), text, 'black', font, anchor='lt')
    return panel


def _place_caption(box: np.ndarray, text: tuple, placed: Sequence[tuple]) -> tuple:
    """Return a place above, below or inside the box, clear of other captions if there is one."""
    width, height = text[2] + 3, text[3] + 4
    left = float(np.clip(box[0], 0, GRID.side - width))
    rows = [box[1] - height, box[3], box[1], box[3] - height]
    places = [(left, row, left + width, row + height) for row in rows]
    inside = [place for place in places if place[1] >= 0 and place[3] <= GRID.side]
    clear = [place for place in inside if not any(_overlap(place, other) for other in placed)]
    return (clear or inside)[0]


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass
class Axes:
    """A panel of the plot: its left edge in pixels, and the accuracies at its bottom and top."""

    left: float
    low: float
    high: float

    def x(self, share: float) -> float:
        """Return where a share of the dense parameters lies."""
        return self.left + PLOT.side * (share / MAX_SHARE)

    def y(self, accuracy: float) -> float:
        """Return where an accuracy lies."""
        return PLOT.top + PLOT.side * (self.high - accuracy) / (self.high - self.low)


def draw_accuracies(results: Mapping) -> Image.Image:
    """Draw clean and corrupted accuracy against parameters, a point for each seed.

    Args:
        results (Mapping): As the classification demo's results.json has them.
    """
    width = PLOT.left + 2 * PLOT.side + PLOT.gap + PLOT_RIGHT
    canvas = Image.new('RGB', (width, PLOT.top + PLOT.side + PLOT.bottom), 'white')
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (figure, title) in enumerate(PANELS.items()):
        values = [v for model in results['models'].values() for v in model[figure]['values']]
        axes = Axes(PLOT.left + number * (PLOT.side + PLOT.gap), *_limits(values))
        _draw_frame(draw, font, axes, f'top-1, %: {title}')
        for name, model in results['models'].items():
            _draw_points(draw, axes, name, model[figure])
    _draw_legend(draw, font, canvas.width, canvas.height)
    return canvas


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ticks below and above all accuracies."""
    low, high = int(min(values) / TICK), int(max(values) / TICK) + 1
    return low * TICK, high * TICK


def _draw_frame(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, axes: Axes, title: str
) -> None:
    right, bottom = axes.left + PLOT.side, PLOT.top + PLOT.side
    draw.text(((axes.left + right) / 2, PLOT.top / 2), title, 'black', font, anchor='mm')
    for i in range(round((axes.high - axes.low) / TICK) + 1):
        accuracy = axes.low + i * TICK
        y = axes.y(accuracy)
        draw.line((axes.left, y, right, y), '#dddddd')
        draw.text((axes.left - 8, y), f'{100 * accuracy:.0f}', 'black', font, anchor='rm')
    draw.rectangle((axes.left, PLOT.top, right, bottom), outline='#888888')
    for share in (*TARGETS, 1.0):
        draw.line((axes.x(share), bottom, axes.x(share), bottom + 5), '#888888')
        draw.text((axes.x(share), bottom + 16), f'{share:g}', 'black', font, anchor='mm')
    place = ((axes.left + right) / 2, bottom + 38)
    draw.text(place, 'share of the dense parameters', 'black', font, anchor='mm')


def _draw_points(draw: ImageDraw.ImageDraw, axes: Axes, name: str, figure: Mapping) -> None:
    """Draw the seeds as circles and their mean as a line."""
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
