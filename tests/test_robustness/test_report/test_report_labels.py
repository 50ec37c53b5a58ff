# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Words about boxes lie inside the image, and over no others."""

import itertools
import json

import cv2
import numpy as np
import pytest

from _utils.report_case import read_page, section, write_case, write_results
from mmdet_adasap.robustness.report import write_report
from mmdet_adasap.robustness.report.box_labels import Rectangle, place_labels, text_width
from mmdet_adasap.robustness.report.scenes import MAX_LABELS

WIDTH, HEIGHT, FONT = 500.0, 333.0, 18.0
# Three at each edge, of which the middle one is narrower than any name.
EDGES = [
    *(Rectangle(0, y, 60, y + 40) for y in (0, 100, 293)),
    *(Rectangle(WIDTH - 70, y, WIDTH, y + 50) for y in (0, 120, 283)),
    *(Rectangle(x, 0, x + 4, 30) for x in (90, 200, 400)),
    *(Rectangle(x, HEIGHT - 5, x + 80, HEIGHT) for x in (70, 210, 330)),
]
PILES = {
    'edges': EDGES,
    'one place': [Rectangle(480, 0, 500, 20)] * 12,
    'dots': [Rectangle(250, 150, 250, 150)] * 12,
    'whole image': [Rectangle(0, 0, WIDTH, HEIGHT)] * 12,
    'beyond the image': [Rectangle(-90, -50, 900, -10), Rectangle(600, 400, 700, 500)] * 6,
}


def check(places, size=(WIDTH, HEIGHT)):
    for one in places:
        assert min(one.left, one.top) >= 0
        assert max(one.right - size[0], one.bottom - size[1]) <= 1e-9
    for one, other in itertools.combinations(places, 2):
        across = min(one.right, other.right) - max(one.left, other.left)
        down = min(one.bottom, other.bottom) - max(one.top, other.top)
        assert across <= 1e-9 or down <= 1e-9, (one, other)


class TestPlaces:
    @pytest.mark.parametrize('pile', PILES)
    @pytest.mark.parametrize('anywhere', [False, True])
    def test_inside_and_apart(self, pile, anywhere):
        texts = [f'✓{i + 1}' for i in range(12)]
        places = place_labels(PILES[pile], texts, (WIDTH, HEIGHT), FONT, anywhere)
        check([place for place in places if place is not None])
        assert not anywhere or None not in places
        assert places == place_labels(PILES[pile], texts, (WIDTH, HEIGHT), FONT, anywhere)

    def test_names_at_the_edges_stand_beside_their_boxes(self):
        texts = [f'✓ {name}' for name in ('person', 'pottedplant', 'cat') * 4]
        places = place_labels(EDGES, texts, (WIDTH, HEIGHT), FONT)
        assert None not in places
        check(places)
        assert all(p.gap(box) <= FONT / 2 for p, box in zip(places, EDGES, strict=True))

    def test_the_first_box_has_its_name_above(self):
        (place,) = place_labels([Rectangle(100, 100, 200, 200)], ['dog'], (WIDTH, HEIGHT), FONT)
        assert (place.left, place.bottom) == (100, 100)

    @pytest.mark.parametrize('size', [(30.0, 500.0), (500.0, 15.0)])
    def test_what_is_larger_than_the_image_has_no_place(self, size):
        box = Rectangle(0, 0, 10, 10)
        assert place_labels([box], ['✓ pottedplant'], size, FONT, anywhere=True) == [None]

    def test_width_counts_what_is_seen(self):
        assert text_width('mm') > text_width('ii')
        assert text_width('犬' * 4) >= 4
        # A combining accent, and a mark that turns the order of letters.
        assert text_width('e\u0301\u200f') == text_width('e')


def write_scene(folder, boxes, classes, size=(500, 333)):
    """Write a case with these boxes found in the example image, clean and corrupted."""
    results = write_case(folder, names=['dense'], classes=classes)
    cv2.imwrite(str(folder / 'image.png'), np.full((size[1], size[0], 3), 128, np.uint8))
    labels = [i % len(classes) for i in range(len(boxes))]
    found = {'bboxes': [list(map(float, box)) for box in boxes], 'labels': labels}
    results['examples'][0]['ground_truth'] = found
    write_results(folder, results)
    for file in (folder / 'cells').iterdir():
        cell = json.loads(file.read_text())
        scores = [0.9 - 0.001 * i for i in range(len(boxes))]
        cell['models']['dense']['examples'] = {'4': {**found, 'scores': scores}}
        file.write_text(json.dumps(cell))
    return section(read_page(write_report(folder)), 'worst')


def tags(scene):
    """Where words stand if a letter is 0.6 font sizes wide and 0.7 high."""
    font = float(scene.attributes['style'].split(':')[1].removesuffix('px'))
    places = []
    for one in scene.all('text', 'tag'):
        x, y = float(one.attributes['x']), float(one.attributes['y'])
        places.append(Rectangle(x, y - 0.7 * font, x + 0.6 * font * len(one.text), y))
    return places


class TestScenes:
    @pytest.mark.parametrize(
        'classes',
        [
            ['cat', 'dog'],
            ['pottedplant', 'diningtable'],
            ['a_class_' * 8, '<b>x</b>', '日本語のクラス名', 'Собака'],
        ],
    )
    @pytest.mark.parametrize('pile', ['edges', 'one place', 'whole image'])
    def test_twelve_boxes(self, tmp_path, classes, pile):
        worst = write_scene(tmp_path, PILES[pile], classes)
        scene = worst.all('svg', 'scene')[0]
        assert len(tags(scene)) == 12
        check(tags(scene))
        # Names stand in the image, or numbers do and the names below.
        words = [one.text for one in scene.all('text', 'tag')]
        listed = worst.all('ul', 'tags')[0].all('li') if worst.all('ul', 'tags') else []
        names = [one.text for one in listed] or words
        assert len(names) == 12
        for i, name in enumerate(names):
            assert classes[i % len(classes)] in name
        assert not listed or [word[1:] for word in words] == [str(i + 1) for i in range(12)]

    @pytest.mark.parametrize('size', [(60, 600), (600, 60), (40, 40)])
    def test_narrow_images(self, tmp_path, size):
        boxes = [(0, 0, size[0], size[1]), (size[0] - 5, size[1] - 5, size[0], size[1])] * 3
        for scene in write_scene(tmp_path, boxes, ['pottedplant'], size).all('svg', 'scene'):
            check(tags(scene), size)

    def test_more_boxes_than_can_be_labelled(self, tmp_path):
        worst = write_scene(tmp_path, PILES['one place'] * 3, ['cat'])
        assert len(worst.all('svg', 'scene')[0].all('text', 'tag')) == MAX_LABELS
        assert worst.all('ul', 'tags')[0].all('li')[-1].text == f'and {36 - MAX_LABELS} more'
