# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Images that are grey, of other depths, damaged or missing, as the benchmark meets them."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmdet_adasap.errors import LoadingFailedError
from mmdet_adasap.robustness.corruptions import corrupt, corruption_seed
from mmdet_adasap.robustness.datasets import CLEAN, Condition, ImageCorruption, MultiViewImages
from mmdet_adasap.robustness.datasets.multi_view import Unreadable

FOG = Condition('fog', 3)
GREY = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
WHOLE = cv2.imencode('.png', COLOUR)[1].tobytes()


class OneImage:
    """A dataset of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_data_info(self, index: int) -> dict:
        return dict(img_id='a', img_path=str(self.path))


def images(path: Path, loading=None, **settings) -> MultiViewImages:
    loading = loading or LoadImageFromFile(**settings)
    return MultiViewImages(OneImage(path), [0], [(loading, lambda results: results)])


def loaded(path: Path, condition: Condition, **settings) -> np.ndarray:
    _, views = images(path, **settings)[condition, 0]
    return views[0]['img']


class TestGrey:
    @pytest.mark.parametrize('shape', [(40, 50), (40, 50, 1)])
    @pytest.mark.parametrize('dtype', [np.uint8, np.float32])
    def test_is_corrupted_as_three_equal_channels(self, shape, dtype):
        image = GREY.reshape(shape).astype(dtype)
        results = ImageCorruption('gaussian_noise', 3, seed=2)(dict(img=image, img_id='a'))
        seed = corruption_seed(2, 'a', 'gaussian_noise', 3)
        colour = corrupt(np.dstack([GREY] * 3), 'gaussian_noise', 3, seed)
        # ITU-R BT.601.
        expected = colour @ np.array([0.299, 0.587, 0.114])
        assert results['img'].shape == shape
        assert results['img'].dtype == dtype
        assert np.abs(results['img'].reshape(40, 50) - expected).max() <= 0.51
        assert not np.array_equal(results['img'], image)

    def test_channel_order_does_not_matter(self):
        found = [
            ImageCorruption('frost', 3, channel_order=order)(dict(img=GREY, img_id='a'))['img']
            for order in ('bgr', 'rgb')
        ]
        assert np.array_equal(*found)

    @pytest.mark.parametrize(
        ('color_type', 'stored'),
        [('grayscale', COLOUR), ('grayscale', GREY), ('unchanged', GREY)],
    )
    @pytest.mark.parametrize('backend', ['cv2', 'pillow'])
    def test_as_a_pipeline_loads_it(self, tmp_path, color_type, stored, backend):
        cv2.imwrite(str(tmp_path / 'a.png'), stored)
        settings = dict(color_type=color_type, imdecode_backend=backend)
        clean, foggy = (loaded(tmp_path / 'a.png', c, **settings) for c in (CLEAN, FOG))
        assert clean.shape == foggy.shape == (40, 50)
        assert np.abs(clean.astype(int) - foggy).mean() > 10
        picture = images(tmp_path / 'a.png', **settings).picture(FOG, 0)
        assert picture.shape == (40, 50, 3)
        assert np.array_equal(picture, np.dstack([foggy] * 3))

    def test_clean_is_what_the_pipeline_gives(self, tmp_path):
        cv2.imwrite(str(tmp_path / 'a.png'), GREY)
        assert np.array_equal(loaded(tmp_path / 'a.png', CLEAN, color_type='unchanged'), GREY)

    def test_colour_is_as_it_was(self):
        found = ImageCorruption('jpeg_compression', 3)(dict(img=COLOUR, img_id='a'))['img']
        seed = corruption_seed(0, 'a', 'jpeg_compression', 3)
        expected = corrupt(np.ascontiguousarray(COLOUR[..., ::-1]), 'jpeg_compression', 3, seed)
        assert np.array_equal(found, expected[..., ::-1])


def write(path: Path, kind: str) -> None:
    wide = COLOUR.astype(np.uint16) * 256
    data = {
        '16 bits': cv2.imencode('.png', wide)[1].tobytes(),
        '16 bits, grey': cv2.imencode('.png', wide[..., 0])[1].tobytes(),
        'transparent': cv2.imencode('.png', np.dstack([COLOUR, GREY]))[1].tobytes(),
        'torn': WHOLE[: len(WHOLE) // 2],
        'empty': b'',
        'no image': b'no image',
        'torn jpeg': cv2.imencode('.jpg', COLOUR)[1].tobytes()[:-300],
        'small': cv2.imencode('.png', COLOUR[:20])[1].tobytes(),
    }
    if kind in ('palette', 'one bit', 'grey and transparent'):
        mode = {'palette': 'P', 'one bit': '1', 'grey and transparent': 'LA'}[kind]
        Image.fromarray(COLOUR).convert(mode).save(path)
    else:
        path.write_bytes(data[kind])


class TestOneFileAmongOthers:
    """It is named and left out; in colour most of them are images like others."""

    @pytest.mark.parametrize(
        ('kind', 'backend', 'reason'),
        [
            ('16 bits', 'cv2', "the image is uint16, .*color_type='color'"),
            ('16 bits, grey', 'cv2', 'the image is uint16'),
            ('16 bits, grey', 'pillow', 'the image is uint16'),
            ('transparent', 'cv2', r"shape \(40, 50, 4\), .*color_type='color'"),
            ('transparent', 'pillow', r'shape \(40, 50, 4\)'),
            ('grey and transparent', 'pillow', r'shape \(40, 50, 2\)'),
            ('one bit', 'pillow', 'the image is bool'),
            ('torn', 'cv2', 'it cannot be decoded'),
            ('torn', 'pillow', 'image file is truncated'),
            ('torn jpeg', 'cv2', 'it cannot be decoded'),
            ('empty', 'cv2', '^the file is empty$'),
            ('empty', 'pillow', '^the file is empty$'),
            ('no image', 'pillow', '^cannot identify image file it$'),
            ('no image', 'cv2', 'it cannot be decoded'),
            ('small', 'cv2', '50 x 20 pixels'),
        ],
    )
    @pytest.mark.parametrize('condition', [CLEAN, FOG])
    def test_unchanged(self, tmp_path, kind, backend, reason, condition):
        path = tmp_path / 'a.png'
        write(path, kind)
        found = images(path, color_type='unchanged', imdecode_backend=backend)[condition, 0][1]
        assert isinstance(found, Unreadable)
        assert found.image == str(path)
        assert re.search(reason, found.error), found.error
        assert '\n' not in found.error

    @pytest.mark.parametrize(
        'kind', ['16 bits', 'transparent', 'palette', 'one bit', 'grey and transparent']
    )
    @pytest.mark.parametrize('backend', ['cv2', 'pillow'])
    def test_in_colour(self, tmp_path, kind, backend):
        write(tmp_path / 'a.png', kind)
        assert loaded(tmp_path / 'a.png', FOG, imdecode_backend=backend).shape == (40, 50, 3)

    @pytest.mark.parametrize('error', [SyntaxError('broken PNG file'), EOFError(), IndexError()])
    def test_errors_of_decoders_are_of_the_file(self, tmp_path, error):
        def loading(results: dict) -> dict:
            raise error

        found = images(tmp_path / 'a.png', loading)[CLEAN, 0][1]
        assert found.image == str(tmp_path / 'a.png')
        assert found.error.startswith(f'it cannot be decoded ({type(error).__name__}')

    def test_errors_of_the_config_name_the_file_they_were_noticed_at(self, tmp_path):
        (tmp_path / 'a.png').write_bytes(WHOLE)
        with pytest.raises(LoadingFailedError, match=r'^.*/a\.png: KeyError: '):
            images(tmp_path / 'a.png', color_type='gray')[CLEAN, 0]

    def test_another_ending(self, tmp_path):
        (tmp_path / 'a.png').write_bytes(WHOLE)
        found = images(tmp_path / 'a.jpg')[CLEAN, 0][1]
        assert found.error.startswith('there is no such file, but a.png is there: call it a.jpg')
        found = images(tmp_path / 'b.jpg')[CLEAN, 0][1]
        assert found.error == 'there is no such file'
