# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""One picture: an image clean and corrupted, with what each model detects in it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image, ImageDraw, ImageFont

from mmdet_adasap.robustness.corruptions.corrupt import corrupt, corruption_seed

SIDE, GAP, LEFT, TOP, BOTTOM = 240, 6, 108, 30, 30
TRUTH, RIGHT, WRONG = '#ffd400', '#2fe04a', '#ff4d4d'


def test_set(config: Path) -> VOCDataset:
    """The clean test set of a config."""
    register_all_modules()
    return DATASETS.build(Config.fromfile(config).test_dataloader.dataset)


def choose_example(examples: Sequence[Mapping], objects: int = 3) -> Mapping:
    """The first example that has at least so many objects, else the one with the most."""
    counts = [len(example['ground_truth']['labels']) for example in examples]
    enough = [i for i, count in enumerate(counts) if count >= objects]
    return examples[enough[0] if enough else int(np.argmax(counts))]


def draw_picture(
    dataset: VOCDataset,
    results: Path,
    corruptions: Sequence[str],
    severity: int,
    min_score: float = 0.3,
) -> Image.Image:
    """Draw a test image with what each model finds in it.

    Args:
        dataset (VOCDataset): The clean test set.
        results (Path): Folder that tools/robustness.py has written.
        corruptions (Sequence[str]): Those to show, beside the clean image.
        severity (int): Their severity.
        min_score (float): Detections below it are left out. Defaults to 0.3.
    """
    found = json.loads((results / 'results.json').read_text())
    example = choose_example(found['examples'])
    index, conditions = example['number'], ['none', *corruptions]
    cells = {name: _cell(results, name, severity) for name in conditions}
    info = dataset.get_data_info(index)
    truth, names = _truth(dataset, index), dataset.metainfo['classes']
    clean = np.asarray(Image.open(info['img_path']).convert('RGB'))
    images = {name: _corrupted(clean, name, severity, info['img_id']) for name in conditions}

    width = LEFT + len(conditions) * (SIDE + GAP)
    height = TOP + (1 + len(found['models'])) * (SIDE + GAP) + BOTTOM
    canvas = Image.new('RGB', (width, height), 'white')
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    rows = ['ground truth', *found['models']]
    for column, condition in enumerate(conditions):
        title = 'clean' if condition == 'none' else f'{condition} {severity}'
        x = LEFT + column * (SIDE + GAP)
        draw.text((x + SIDE // 2, TOP // 2), title, 'black', font, anchor='mm')
        for row, model in enumerate(rows):
            y = TOP + row * (SIDE + GAP)
            cell = cells[condition]
            boxes = _found(cell, model, index, min_score, truth) if row else truth
            canvas.paste(_panel(images[condition], boxes, names), (x, y))
            if not column:
                draw.text((LEFT // 2, y + SIDE // 2), model, 'black', font, anchor='mm')
    legend = (
        f'Test image {info["img_id"]}, one with three objects or more. Detections with a '
        f'score of {min_score} or more; green: right digit, IoU 0.5 or more; red: wrong.'
    )
    draw.text((LEFT, height - BOTTOM // 2), legend, 'black', font, anchor='lm')
    return canvas


def _truth(dataset: VOCDataset, index: int) -> list[tuple]:
    """Objects of an image as (box, label, colour, caption suffix)."""
    instances = dataset.get_data_info(index)['instances']
    return [(np.array(i['bbox'], float), i['bbox_label'], TRUTH, '') for i in instances]


def _cell(results: Path, condition: str, severity: int) -> dict:
    name = 'clean' if condition == 'none' else f'{condition}-{severity}'
    return json.loads((results / 'cells' / f'{name}.json').read_text())


def _found(
    cell: Mapping, model: str, index: int, min_score: float, truth: Sequence[tuple]
) -> list[tuple]:
    """Detections of an image, best last, so that it is drawn over the others.

    As in the benchmark, an object is found once: what comes after that is wrong.
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
            for number, (other, name, *_) in enumerate(truth)
            if name == label and _iou(box, other) >= 0.5 and number not in taken
        ]
        taken.update(hits[:1])
        boxes.insert(0, (box, label, RIGHT if hits else WRONG, f' {score:.2f}'))
    return boxes


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return float(np.prod(size) / (sum(areas) - np.prod(size)))


def _corrupted(image: np.ndarray, condition: str, severity: int, image_id: str) -> np.ndarray:
    """The image as CorruptedVOCDataset with its default seed shows it."""
    if condition == 'none':
        return image
    key = corruption_seed(0, image_id, condition, severity)
    return corrupt(image, condition, severity, key)


def _panel(image: np.ndarray, boxes: Sequence[tuple], names: Sequence[str]) -> Image.Image:
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    panel = Image.fromarray(image).resize((round(width * scale), round(height * scale)))
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(size=13)
    for box, _, colour, _ in boxes:
        draw.rectangle(tuple(box * scale), outline=colour, width=2)
    captions = []
    for box, label, colour, suffix in reversed(boxes):
        text = f'{names[label]}{suffix}'
        size = draw.textbbox((0, 0), text, font, anchor='lt')
        place = _place(box * scale, size, [other for other, *_ in captions])
        captions.append((place, text, colour))
    for place, text, colour in reversed(captions):
        draw.rectangle(place, fill=colour)
        draw.text((place[0] + 1, place[1] + 1), text, 'black', font, anchor='lt')
    return panel


def _place(box: np.ndarray, text: tuple, placed: Sequence[tuple]) -> tuple:
    """Where a caption goes: above its box, else below it, clear of those that are there."""
    width, height = text[2] + 3, text[3] + 4
    left = float(np.clip(box[0], 0, SIDE - width))
    rows = [box[1] - height, box[3], box[1], box[3] - height]
    places = [(left, row, left + width, row + height) for row in rows]
    inside = [place for place in places if place[1] >= 0 and place[3] <= SIDE]
    clear = [place for place in inside if not any(_overlap(place, other) for other in placed)]
    return (clear or inside)[0]


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
