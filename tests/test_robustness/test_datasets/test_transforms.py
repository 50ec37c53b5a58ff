# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import pickle
from importlib.util import find_spec

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

from mmdet_adasap.robustness.corruptions.corrupt import corrupt, corruption_seed
from mmdet_adasap.robustness.datasets import ImageCorruption


class TestImageCorruption:
    @pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmpretrain'])
    def test_is_found_by_bare_name(self, scope):
        if find_spec(scope) is None:
            pytest.skip(f'{scope} is not installed')
        cfg = {'type': 'ImageCorruption', 'corruption': 'fog', 'severity': 2, 'seed': 4}
        with DefaultScope.overwrite_default_scope(scope):
            assert repr(TRANSFORMS.build(cfg)) == (
                "ImageCorruption(corruption='fog', severity=2, seed=4, channel_order='bgr', "
                "mode='fast', data_root=None)"
            )

    def test_pure_red_is_corrupted_as_red(self):
        red = np.zeros((48, 48, 3), np.uint8)
        red[..., 0] = 255
        expected = corrupt(red, 'jpeg_compression', 3)
        bgr = red[..., ::-1].copy()
        got = ImageCorruption('jpeg_compression', 3)({'img': bgr, 'img_id': 'a'})['img']
        assert np.array_equal(got[..., ::-1], expected)
        # JPEG treats blue otherwise, so the mix-up of channels would show.
        wrong = ImageCorruption('jpeg_compression', 3, channel_order='rgb')
        assert not np.array_equal(wrong({'img': bgr, 'img_id': 'a'})['img'], got)

    def test_rgb_and_bgr_are_the_same_picture(self, photo):
        image = photo[:64, :80]
        as_rgb = ImageCorruption('gaussian_noise', 3, channel_order='rgb')
        as_bgr = ImageCorruption('gaussian_noise', 3)
        rgb = as_rgb({'img': image, 'img_id': 1})['img']
        bgr = as_bgr({'img': image[..., ::-1], 'img_id': 1})['img']
        assert np.array_equal(rgb, bgr[..., ::-1])
        assert bgr.flags.c_contiguous

    def test_pixels_depend_on_seed_and_id(self, photo):
        image = photo[:64, :80]

        def run(seed: int, **results) -> np.ndarray:
            return ImageCorruption('gaussian_noise', 3, seed)({'img': image, **results})['img']

        base = run(0, img_id='000001')
        expected = corrupt(
            image[..., ::-1],
            'gaussian_noise',
            3,
            corruption_seed(0, '000001', 'gaussian_noise', 3),
        )
        assert np.array_equal(base, expected[..., ::-1])
        assert np.array_equal(base, run(0, img_path='/some/where/000001.jpg'))
        assert np.array_equal(base, run(0, img_path='x.jpg', img_id='000001'))
        assert not np.array_equal(base, run(1, img_id='000001'))
        assert not np.array_equal(base, run(0, img_id='000002'))

    def test_exact_mode_repeats_the_published_draws(self, photo):
        image = photo[:64, :80]
        step = ImageCorruption('gaussian_noise', 3, 7, mode='exact')
        seed = corruption_seed(7, 'a', 'gaussian_noise', 3, 'exact')
        noise = np.random.RandomState(seed).normal(size=image.shape, scale=0.18)
        expected = np.clip(image[..., ::-1] / 255 + noise, 0, 1) * 255
        got = step({'img': image, 'img_id': 'a'})['img'][..., ::-1]
        assert np.abs(got - expected).max() <= 1

    def test_path_in_data_root_is_an_id(self, photo):
        image = photo[:64, :80]

        def run(step: ImageCorruption, **results) -> np.ndarray:
            return step({'img': image, **results})['img']

        rooted = ImageCorruption('gaussian_noise', 3, data_root='/data/val')
        base = run(rooted, img_path='/data/val/n02/7.JPEG')
        assert np.array_equal(base, run(rooted, img_path='/data/val/../val/n02/7.JPEG'))
        assert np.array_equal(base, run(rooted, img_id='n02/7.JPEG', img_path='elsewhere.png'))
        moved = ImageCorruption('gaussian_noise', 3, data_root='/mnt/imagenet/val/')
        assert np.array_equal(base, run(moved, img_path='/mnt/imagenet/val/n02/7.JPEG'))
        # Of the file name alone it would be the same noise in every class.
        assert not np.array_equal(base, run(rooted, img_path='/data/val/n01/7.JPEG'))
        with pytest.raises(ValueError, match=r"n02/7\.JPEG is not in data_root='/data/val'"):
            run(rooted, img_path='/data/validation/n02/7.JPEG')

    def test_place_in_the_dataset_is_an_id(self, photo):
        step = ImageCorruption('gaussian_noise', 3)
        image = photo[:64, :80]
        base = step({'img': image, 'sample_idx': 0})['img']
        assert np.array_equal(base, step({'img': image, 'img_id': 0, 'sample_idx': 1})['img'])
        assert np.array_equal(base, step({'img': image, 'img_path': 'a/0.png'})['img'])
        assert not np.array_equal(base, step({'img': image, 'sample_idx': 1})['img'])

    def test_whole_levels_may_be_float(self, photo):
        """LoadImageFromFile(to_float32=True), as of CenterNet's test pipeline."""
        step, image = ImageCorruption('fog', 3), photo[:64, :80]
        got = step({'img': image.astype(np.float32), 'img_id': 1})['img']
        assert got.dtype == np.float32
        assert np.array_equal(got, step({'img': image, 'img_id': 1})['img'])

    def test_coco(self, photo, tmp_path):
        coco_dataset = pytest.importorskip('mmdet.datasets').CocoDataset
        Image.fromarray(photo[:80, :90]).save(tmp_path / 'a.png')
        annotations = {
            'images': [{'id': 397133, 'file_name': 'a.png', 'width': 90, 'height': 80}],
            'annotations': [],
            'categories': [{'id': 1, 'name': 'person'}],
        }
        (tmp_path / 'instances.json').write_text(json.dumps(annotations))
        loaded = coco_dataset(
            ann_file=str(tmp_path / 'instances.json'),
            data_prefix={'img': str(tmp_path)},
            test_mode=True,
            pipeline=[
                {'type': 'LoadImageFromFile'},
                {'type': 'ImageCorruption', 'corruption': 'shot_noise', 'severity': 2},
            ],
        )[0]
        seed = corruption_seed(0, 397133, 'shot_noise', 2)
        expected = corrupt(photo[:80, :90], 'shot_noise', 2, seed)
        assert np.array_equal(loaded['img'][..., ::-1], expected)

    def test_none_is_identity(self, photo):
        results = {'img': photo}
        assert ImageCorruption('none', severity=0)(results)['img'] is photo

    def test_pickles(self, photo):
        step = ImageCorruption('fog', 2)
        results = {'img': photo[:40, :40], 'img_id': 5}
        again = pickle.loads(pickle.dumps(step))
        assert np.array_equal(step(dict(results))['img'], again(dict(results))['img'])

    @pytest.mark.parametrize(
        ('arguments', 'error', 'message'),
        [
            ({'corruption': 'contrats'}, ValueError, "did you mean 'contrast'"),
            ({'corruption': 'fog', 'severity': 6}, ValueError, 'severity=6'),
            ({'corruption': 'fog', 'seed': 'a'}, TypeError, "seed='a' must be an int"),
            ({'corruption': 'fog', 'channel_order': 'gbr'}, ValueError, "'bgr' or 'rgb'"),
            ({'corruption': 'fog', 'mode': 'slow'}, ValueError, "'fast' or 'exact'"),
            ({'corruption': 'fog', 'data_root': 3}, TypeError, 'data_root=3 must be a str'),
        ],
    )
    def test_refuses_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            ImageCorruption(**arguments)

    def test_names_the_image_it_refuses(self):
        small = np.zeros((20, 40, 3), np.uint8)
        with pytest.raises(ValueError, match=r'ImageCorruption on a/b\.jpg: .*40 x 20'):
            ImageCorruption('fog')({'img': small, 'img_path': 'a/b.jpg'})
        with pytest.raises(TypeError, match='float32'):
            ImageCorruption('fog')({'img': np.full((40, 40, 3), 0.5, np.float32), 'img_id': 1})

    def test_needs_an_image(self):
        with pytest.raises(KeyError, match='behind the step that loads one'):
            ImageCorruption('fog')({'img_path': 'a.jpg'})

    def test_needs_an_id(self, photo):
        with pytest.raises(KeyError, match='needs img_id, img_path or sample_idx'):
            ImageCorruption('fog')({'img': photo})
