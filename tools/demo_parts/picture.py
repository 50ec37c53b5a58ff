# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""One picture: an image clean and corrupted, with what each model detects in it."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image, ImageDraw, ImageFont

from mmdet_adasap.datasets import corrupt, corruption_seed

SIDE, GAP, LEFT, TOP, BOTTOM = 240, 6, 108, 30, 30
TRUTH, RIGHT, WRONG = '#ffd400', '#2fe04a', '#ff4d4d'


def test_set(config: Path) -> VOCDataset:
    """The clean test set of a config."""
    return DATASETS.build(Config.fromfile(config).test_dataloader.dataset)


def choose_image(dataset: VOCDataset, objects: int = 3) -> int:
    """The first image of a set with at least so many objects, by index."""
    return next(i for i in range(len(dataset)) if len(_truth(dataset, i)) >= objects)


def draw_picture(
    dataset: VOCDataset,
    detections: Mapping[str, Mapping[str, Path]],
    severity: int,
    min_score: float = 0.3,
) -> Image.Image:
    """Draw the first test image that has three objects or more.

    Args:
        dataset (VOCDataset): The clean test set.
        detections (Mapping): For each model and condition ('none' or a corruption) the file
            that test.py has written with ``--out``.
        severity (int): Severity of the corruptions.
        min_score (float): Detections below it are left out. Defaults to 0.3.
    """
    index = choose_image(dataset)
    info = dataset.get_data_info(index)
    truth, names = _truth(dataset, index), dataset.metainfo['classes']
    conditions = list(next(iter(detections.values())))
    clean = np.asarray(Image.open(info['img_path']).convert('RGB'))
    images = {name: _corrupted(clean, name, severity, info['img_id']) for name in conditions}

    width = LEFT + len(conditions) * (SIDE + GAP)
    height = TOP + (1 + len(detections)) * (SIDE + GAP) + BOTTOM
    canvas = Image.new('RGB', (width, height), 'white')
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    rows = {'ground truth': None, **detections}
    for column, condition in enumerate(conditions):
        title = 'clean' if condition == 'none' else f'{condition} {severity}'
        x = LEFT + column * (SIDE + GAP)
        draw.text((x + SIDE // 2, TOP // 2), title, 'black', font, anchor='mm')
        for row, (model, files) in enumerate(rows.items()):
            y = TOP + row * (SIDE + GAP)
            boxes = truth if files is None else _found(files[condition], index, min_score, truth)
            canvas.paste(_panel(images[condition], boxes, names), (x, y))
            if not column:
                draw.text((LEFT // 2, y + SIDE // 2), model, 'black', font, anchor='mm')
    legend = (
        f'Test image {info["img_id"]}, the first with three objects or more. Detections with a '
        f'score of {min_score} or more; green: right digit, IoU 0.5 or more; red: wrong.'
    )
    draw.text((LEFT, height - BOTTOM // 2), legend, 'black', font, anchor='lm')
    return canvas


def _truth(dataset: VOCDataset, index: int) -> list[tuple]:
    """Objects of an image as (box, label, colour, caption suffix)."""
    instances = dataset.get_data_info(index)['instances']
    return [(np.array(i['bbox'], float), i['bbox_label'], TRUTH, '') for i in instances]


def _found(file: Path, index: int, min_score: float, truth: Sequence[tuple]) -> list[tuple]:
    """Detections of an image, best last, so that it is drawn over the others.

    As in the benchmark, an object is found once: what comes after that is wrong.
    """
    found = pickle.loads(file.read_bytes())[index]['pred_instances']
    boxes, taken = [], set()
    for i in np.argsort(-found['scores'].numpy()):
        score, label = float(found['scores'][i]), int(found['labels'][i])
        if score < min_score:
            break
        box = found['bboxes'][i].numpy()
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
