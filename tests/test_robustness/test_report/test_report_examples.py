# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import base64

import cv2
import numpy as np
import pytest

from _utils.report_case import (
    BOX,
    SIZE,
    example_image,
    read_page,
    section,
    write_case,
    write_results,
)
from mmdet_adasap.robustness.datasets import ImageCorruption
from mmdet_adasap.robustness.report import write_report
from mmdet_adasap.robustness.report.examples import MAX_SIDE, iou, match_boxes
from mmdet_adasap.robustness.report.schema import Boxes

KINDS = ('truth', 'right', 'wrong')


@pytest.fixture
def scenes(tmp_path):
    write_case(tmp_path)
    page = read_page(write_report(tmp_path))
    images = {
        one.attributes['id']: cv2.imdecode(
            np.frombuffer(base64.b64decode(one.attributes['href'].split(',')[1]), np.uint8), 1
        )
        for one in page.all('image')
    }
    return section(page, 'worst').all('svg', 'scene'), images


def rectangles(scene, kind):
    return [
        [float(one.attributes[key]) for key in ('x', 'y', 'width', 'height')]
        for one in scene.all('rect', kind)
    ]


class TestScenes:
    def test_boxes_lie_on_the_pixels_they_belong_to(self, scenes):
        scene, images = scenes[0][0], scenes[1]
        image = images[scene.all('use')[0].attributes['href'][1:]]
        _, _, width, height = map(float, scene.attributes['viewbox'].split())
        assert (height, width) == SIZE
        ((x, y, w, h),) = rectangles(scene, 'truth')
        across, down = image.shape[1] / width, image.shape[0] / height
        inside = np.zeros(image.shape[:2], bool)
        inside[
            round(y * down) : round((y + h) * down), round(x * across) : round((x + w) * across)
        ] = 1
        red = image[..., 2].astype(int) - image[..., 1] > 80
        # JPEG blurs the edge by a few pixels.
        assert (red != inside).mean() < 0.01
        assert inside.sum() == 1600

    def test_right_and_wrong_boxes(self, scenes):
        clean, corrupted = scenes[0][:2]
        assert rectangles(clean, 'right') == [[20.0, 10.0, 40.0, 40.0]]
        assert rectangles(clean, 'wrong') == [[1.0, 2.0, 8.0, 10.0]]
        assert rectangles(clean, 'truth') == [[20.0, 10.0, 40.0, 40.0]]
        assert [rectangles(corrupted, kind) for kind in KINDS[1:]] == [[], []]
        titles = [title.text for title in clean.all('title')]
        assert titles == [
            'clean',
            'ground truth: dog',
            'right: dog, score 0.90',
            'wrong: cat, score 0.80',
        ]

    def test_pixels_are_those_of_the_run(self, scenes):
        images = scenes[1]
        assert len(images) >= 3
        for name, image in images.items():
            _, _, corruption, severity = name.split('-')
            step = ImageCorruption(corruption, int(severity), seed=3)
            expected = step({'img': example_image(), 'img_id': 'image'})['img']
            _, data = cv2.imencode('.jpg', expected, [cv2.IMWRITE_JPEG_QUALITY, 85])
            np.testing.assert_array_equal(image, cv2.imdecode(data, 1))

    def test_large_images_are_made_smaller_and_boxes_stay(self, tmp_path):
        large = tmp_path / 'large.png'
        write_case(tmp_path, names=['dense'], image=large)
        cv2.imwrite(str(large), cv2.resize(example_image(), (960, 640)))
        page = read_page(write_report(tmp_path))
        image = page.all('image')[0].attributes
        data = np.frombuffer(base64.b64decode(image['href'].split(',')[1]), np.uint8)
        assert cv2.imdecode(data, 1).shape == (320, MAX_SIDE, 3)
        assert (image['width'], image['height']) == ('960', '640')
        scene = section(page, 'worst').all('svg', 'scene')[0]
        assert scene.attributes['viewbox'] == '0 0 960 640'
        assert rectangles(scene, 'truth') == [[20.0, 10.0, 40.0, 40.0]]

    @pytest.mark.parametrize('content', [None, b'', b'no image'])
    def test_an_image_that_is_gone(self, tmp_path, content):
        write_case(tmp_path)
        image = tmp_path / 'image.png'
        image.unlink()
        if content is not None:
            image.write_bytes(content)
        page = read_page(write_report(tmp_path))
        assert 'Example images that cannot be shown (1): ' in page.all('aside')[0].text
        assert 'image.png' in page.all('aside')[0].text
        assert 'No example can be shown.' in section(page, 'worst').text
        assert page.all('image') == []

    def test_a_run_without_examples(self, tmp_path):
        results = write_case(tmp_path)
        results['examples'] = []
        write_results(tmp_path, results)
        page = read_page(write_report(tmp_path))
        assert 'example' not in section(page, 'worst').text.lower()

    def test_the_worst_cells_are_those_of_the_largest_drop(self, tmp_path):
        results = write_case(tmp_path, names=['dense'])
        results['models']['dense']['cells']['fog']['3'] = 0.001
        write_results(tmp_path, results)
        strong = section(read_page(write_report(tmp_path)), 'worst').all('strong')
        assert strong[0].text == 'fog 3'
        assert len({one.text.split()[0] for one in strong}) == 3


class TestMatch:
    def test_each_object_is_found_once(self):
        truth = Boxes((BOX, (0, 0, 10, 10)), (1, 1))
        shifted = (22.0, 10.0, 62.0, 50.0)
        found = Boxes((shifted, BOX, (0, 0, 10, 10), BOX), (1, 1, 0, 1), (0.5, 0.9, 0.8, 0.29))
        matched = match_boxes(found, truth)
        assert matched.boxes.scores == (0.9, 0.8, 0.5)
        # The better one takes the object; the second is of another class.
        assert matched.right == (True, False, False)

    def test_iou(self):
        assert iou((0, 0, 4, 4), (2, 0, 6, 4)) == pytest.approx(8 / 24)
        assert iou((0, 0, 4, 4), (4, 0, 6, 4)) == 0
        assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0
