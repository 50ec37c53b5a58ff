# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A folder as robustness.py leaves it, with made-up figures, and a reader of HTML."""

import json
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

from mmdet_adasap.robustness.datasets.multi_view import CLEAN, Condition
from mmdet_adasap.robustness.results import build_models

CORRUPTIONS = ('gaussian_noise', 'motion_blur', 'fog', 'contrast', 'jpeg_compression')
SEVERITIES = (1, 3, 5)
RESAMPLES = 50
BOX = (20.0, 10.0, 60.0, 50.0)
"""Where the red rectangle of the example image is: x1, y1, x2, y2."""
SIZE = (64, 96)


def write_case(
    folder: Path,
    names: Sequence[str] = ('dense', 'slim'),
    corruptions: Sequence[str] = CORRUPTIONS,
    missing: Sequence[Condition] = (),
    partial: bool = False,
    intervals: bool = True,
    classes: Sequence[str] = ('cat', 'dog'),
    seed: int = 0,
    image: Path | None = None,
    severities: Sequence[int] | None = None,
    value: Callable[[str, Condition], float] | None = None,
) -> dict:
    """Write results.json, cells/ and an image.

    The figures follow from ``seed``; or P is ``value(model, condition)``, and its draws are near.
    """
    severities = severities or SEVERITIES
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'cells').mkdir(exist_ok=True)
    image = image or folder / 'image.png'
    cv2.imwrite(str(image), example_image())
    rng = np.random.default_rng(seed)
    conditions = [CLEAN, *(Condition(c, s) for s in severities for c in corruptions)]
    there = [condition for condition in conditions if condition not in missing]
    cells = {}
    for condition in there:
        models = {
            name: _score(rng, condition, intervals, classes, value and value(name, condition))
            for name in names
        }
        cells[condition] = {'models': models}
        name = 'clean' if condition == CLEAN else f'{condition.corruption}-{condition.severity}'
        (folder / 'cells' / f'{name}.json').write_text(json.dumps(cells[condition]))
    results = {
        'protocol': _protocol(names, corruptions, severities, RESAMPLES if intervals else 0),
        'reference': names[0],
        'mCE_reference': names[0],
        'finished': not missing,
        'models': {
            name: {
                'config': 'configs/x.py',
                'checkpoint': f'{name}.pth',
                **figures,
                'cost': {
                    'params': 1000000 + 7 * len(name),
                    'flops': 2.5e9,
                    'image': [300, 400],
                    'latency_ms': 12.5,
                    'threads': 1,
                },
            }
            for name, figures in build_models(cells, names, conditions, names[0], partial).items()
        },
        'classes': list(classes),
        'examples': [
            {
                'number': 4,
                'img_id': 'image',
                'img_path': str(image),
                'ground_truth': {'bboxes': [list(BOX)], 'labels': [1]},
            }
        ],
        'unreadable': [],
        'times': {},
    }
    write_results(folder, results)
    return json.loads(json.dumps(results))


def write_results(folder: Path, results: dict) -> None:
    (folder / 'results.json').write_text(json.dumps(results))


def example_image() -> np.ndarray:
    """Grey, with a red rectangle at ``BOX``; BGR."""
    image = np.full((*SIZE, 3), 128, np.uint8)
    x1, y1, x2, y2 = map(int, BOX)
    image[y1:y2, x1:x2] = (0, 0, 255)
    return image


def _score(rng, condition: Condition, intervals: bool, classes: Sequence[str], value) -> dict:
    if value is None:
        value = float(0.6 - 0.1 * condition.severity + rng.uniform(-0.05, 0.05))
    draws = np.clip(value + rng.normal(0, 0.01, RESAMPLES), 0, 1).tolist()
    found = condition == CLEAN
    return {
        'value': value,
        'per_class': dict.fromkeys(classes, value),
        'metrics': {},
        'resampled': draws if intervals else None,
        'examples': {
            '4': {
                'bboxes': [list(BOX), [1.0, 2.0, 9.0, 12.0]] if found else [],
                'scores': [0.9, 0.8] if found else [],
                'labels': [1, 0] if found else [],
            }
        },
    }


def _protocol(
    names: Sequence[str], corruptions: Sequence[str], severities: Sequence[int], resamples: int
) -> dict:
    return {
        'format': 1,
        'metric': 'pascal_voc/mAP',
        'corruptions': list(corruptions),
        'severities': list(severities),
        'seed': 3,
        'mode': 'fast',
        'subset': None,
        'dataset': {'type': 'VOCDataset', 'images': 20, 'of': 20, 'sha256': 'abc'},
        'batch_size': 1,
        'device': 'cpu',
        'bootstrap': {'resamples': resamples, 'seed': 3, 'interval': '95 %'},
        'models': {name: {'config_sha256': '0', 'checkpoint_sha256': '1'} for name in names},
        'versions': {'mmdet_adasap': '0.1.0', 'numpy': '2', 'opencv': '4.12.0', 'torch': '2.4'},
    }


class Element:
    """An element of a page: its name, attributes, and children (elements and text)."""

    def __init__(self, tag: str, attributes: dict) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list = []

    def all(self, tag: str, kind: str | None = None) -> list['Element']:
        """Elements of a name, and of a CSS class, in here."""
        return [
            one
            for one in self._walk()
            if one.tag == tag and (kind is None or kind in one.attributes.get('class', '').split())
        ]

    def _walk(self) -> Iterator['Element']:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._walk()

    @property
    def text(self) -> str:
        return ''.join(c.text if isinstance(c, Element) else c for c in self.children)

    @property
    def rows(self) -> list[list[str]]:
        """The text of the cells of a table."""
        return [
            [cell.text for cell in row.children if isinstance(cell, Element)]
            for row in self.all('tr')
        ]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element('', {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        one = Element(tag, dict(attrs))
        self.open[-1].children.append(one)
        if tag not in ('meta', 'wbr'):
            self.open.append(one)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, f'</{tag}> closes another element'

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(file: Path) -> Element:
    reader = _Reader()
    reader.feed(file.read_text(encoding='utf-8'))
    assert len(reader.open) == 1
    return reader.root


def section(page: Element, key: str) -> Element:
    """A section of the report by its id; None if it is not there."""
    return next((one for one in page.all('section') if one.attributes.get('id') == key), None)
