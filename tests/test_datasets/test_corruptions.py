# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import warnings

import numpy as np
import pytest
from scipy.stats import ks_2samp

from mmdet_adasap.datasets.corruptions import CORRUPTIONS, GROUPS, corrupt, corruption_seed

SEVERITIES = (1, 2, 3, 4, 5)
# Pieces of a photograph: usual, odd, very wide and tall ones, and the smallest allowed.
SHAPES = {
    'photo': (slice(0, 150), slice(0, 200)),
    'odd': (slice(7, 110), slice(11, 160)),
    'wide': (slice(200, 233), slice(0, 640)),
    'tall': (slice(0, 427), slice(300, 334)),
    'smallest': (slice(300, 332), slice(100, 132)),
}


def reference(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        imagecorruptions = pytest.importorskip('imagecorruptions')
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        return imagecorruptions.corrupt(image, severity=severity, corruption_name=name)
    finally:
        np.random.set_state(state)


class TestExactMode:
    @pytest.mark.parametrize('shape', SHAPES)
    @pytest.mark.parametrize('name', CORRUPTIONS)
    def test_equals_reference(self, photo, name, shape):
        image = photo[SHAPES[shape]]
        for severity in SEVERITIES:
            for seed in (0, 7):
                expected = reference(image, name, severity, seed).astype(int)
                got = corrupt(image, name, severity, seed, mode='exact').astype(int)
                difference = np.abs(got - expected)
                assert difference.max() <= 1
                assert (difference > 0).any(-1).mean() <= 0.025

    @pytest.mark.parametrize('level', [0, 93, 255])
    @pytest.mark.parametrize('name', CORRUPTIONS)
    def test_image_of_one_level(self, name, level):
        image = np.full((40, 50, 3), level, np.uint8)
        for severity in SEVERITIES:
            expected = reference(image, name, severity, 1).astype(int)
            got = corrupt(image, name, severity, 1, mode='exact').astype(int)
            assert np.abs(got - expected).max() <= 1

    def test_takes_and_moves_on_a_random_state(self, photo):
        rng = np.random.RandomState(5)
        first = corrupt(photo[:64, :64], 'gaussian_noise', 3, rng, mode='exact')
        second = corrupt(photo[:64, :64], 'gaussian_noise', 3, rng, mode='exact')
        assert np.array_equal(
            first, corrupt(photo[:64, :64], 'gaussian_noise', 3, 5, mode='exact')
        )
        assert not np.array_equal(first, second)


class TestFastMode:
    @pytest.mark.parametrize('severity', [1, 5])
    @pytest.mark.parametrize('name', ['gaussian_noise', 'motion_blur', 'fog'])
    def test_has_the_distribution_of_exact_mode(self, photo, name, severity):
        image = photo[100:140, 200:248]
        values = {}
        for mode in ('fast', 'exact'):
            images = np.stack([corrupt(image, name, severity, i, mode) for i in range(200)])
            images = images.astype(float)
            # Mean, contrast and fine structure of each image, and one pixel over all of them.
            values[mode] = (
                images.mean((1, 2, 3)),
                images.std((1, 2, 3)),
                np.abs(np.diff(images, axis=2)).mean((1, 2, 3)),
                images[:, 20, 20, 0],
            )
            spread = images.std(0).mean()
            values[mode + ' spread'] = spread
        for fast, exact in zip(values['fast'], values['exact'], strict=True):
            assert ks_2samp(fast, exact).pvalue > 0.005
        assert values['fast spread'] == pytest.approx(values['exact spread'], rel=0.08)

    def test_gaussian_noise_has_the_sigma_of_its_table(self):
        image = np.full((300, 300, 3), 128, np.uint8)
        noise = corrupt(image, 'gaussian_noise', 1).astype(float) - 128
        assert noise.std() == pytest.approx(0.08 * 255, rel=0.01)
        # Cutting the fraction off costs half a level.
        assert noise.mean() == pytest.approx(-0.5, abs=0.2)

    def test_contrast_keeps_means_and_scales_deviations(self, photo):
        got = corrupt(photo, 'contrast', 3).astype(float) + 0.5
        assert np.allclose(got.mean((0, 1)), photo.mean((0, 1)), atol=0.1)
        assert np.allclose(got.std((0, 1)), 0.2 * photo.std((0, 1)), rtol=0.01)

    def test_motion_blur_keeps_even_areas_and_mixes_columns(self):
        assert (corrupt(np.full((64, 64, 3), 255, np.uint8), 'motion_blur', 3) == 255).all()
        stripes = np.zeros((65, 65, 3), np.uint8)
        stripes[:, ::2] = 255
        blurred = corrupt(stripes, 'motion_blur', 5).astype(float)
        assert blurred[:, :24].std() < 0.1 * stripes.std()

    def test_jpeg_gets_worse_with_severity(self, photo):
        errors = [
            np.abs(corrupt(photo, 'jpeg_compression', severity).astype(int) - photo).mean()
            for severity in SEVERITIES
        ]
        assert errors == sorted(errors)

    def test_fog_keeps_the_largest_level(self, photo):
        for severity in SEVERITIES:
            assert corrupt(photo, 'fog', severity).max() <= photo.max()

    @pytest.mark.parametrize(
        ('name', 'mean', 'std'),
        [
            ('gaussian_noise', 141.433, 87.473),
            ('motion_blur', 142.053, 82.117),
            ('fog', 113.433, 44.211),
            ('contrast', 143.137, 17.378),
            ('jpeg_compression', 143.702, 85.274),
        ],
    )
    def test_golden_numbers(self, photo, name, mean, std):
        seed = corruption_seed(0, '000001', name, 3)
        got = corrupt(photo, name, 3, seed)
        assert got.mean() == pytest.approx(mean, abs=0.005)
        assert got.std() == pytest.approx(std, abs=0.005)


class TestCorrupt:
    @pytest.mark.parametrize('mode', ['fast', 'exact'])
    @pytest.mark.parametrize('name', CORRUPTIONS)
    def test_depends_on_its_arguments_alone(self, photo, name, mode):
        image = photo[:70, :91].copy()
        before = image.copy()
        first = corrupt(image, name, 2, 11, mode)
        np.random.normal(size=3)
        assert np.array_equal(first, corrupt(image, name, 2, 11, mode))
        assert np.array_equal(image, before)
        assert first.shape == image.shape
        assert first.dtype == np.uint8

    @pytest.mark.parametrize('mode', ['fast', 'exact'])
    @pytest.mark.parametrize('name', CORRUPTIONS)
    def test_leaves_the_global_generator_alone(self, photo, name, mode):
        np.random.seed(0)
        corrupt(photo[:64, :64], name, 3, 1, mode)
        after = np.random.random()
        np.random.seed(0)
        assert after == np.random.random()

    @pytest.mark.parametrize('name', CORRUPTIONS)
    def test_takes_views(self, photo, name):
        view = photo[:64, 64:0:-1, ::-1]
        assert np.array_equal(corrupt(view, name, 3), corrupt(view.copy(), name, 3))

    @pytest.mark.parametrize('name', ['gaussian_noise', 'motion_blur', 'fog'])
    def test_seeds_differ(self, photo, name):
        image = photo[:64, :64]
        assert not np.array_equal(corrupt(image, name, 3, 0), corrupt(image, name, 3, 1))

    def test_groups_hold_every_corruption(self):
        assert [name for group in GROUPS.values() for name in group] == list(CORRUPTIONS)
        assert list(GROUPS) == ['noise', 'blur', 'weather', 'digital']

    @pytest.mark.parametrize(
        ('image', 'error', 'message'),
        [
            (np.zeros((40, 40), np.uint8), ValueError, r'shape \(40, 40\).*load it in colour'),
            (np.zeros((40, 40, 1), np.uint8), ValueError, 'load it in colour'),
            (np.zeros((40, 40, 4), np.uint8), ValueError, 'load it in colour'),
            (np.zeros((40, 40, 3), np.float32), TypeError, 'float32.*uint8'),
            ([[1, 2]], TypeError, 'list.*uint8'),
            (np.zeros((31, 40, 3), np.uint8), ValueError, '40 x 31 pixels.*32 x 32'),
        ],
    )
    def test_refuses_images(self, image, error, message):
        with pytest.raises(error, match=message):
            corrupt(image, 'fog', 3)

    @pytest.mark.parametrize(
        ('arguments', 'error', 'message'),
        [
            ({'name': 'gausian_noise'}, ValueError, "did you mean 'gaussian_noise'"),
            ({'name': 'xyz'}, ValueError, "'xyz' is unknown: use one of gaussian_noise"),
            ({'name': 3}, TypeError, 'corruption=3 must be a str'),
            ({'severity': 0}, ValueError, 'severity=0 must be from 1'),
            ({'severity': 6}, ValueError, 'severity=6 must be from 1'),
            ({'severity': 2.5}, TypeError, 'severity=2.5 must be an int'),
            ({'severity': True}, TypeError, 'severity=True must be an int'),
            ({'mode': 'slow'}, ValueError, "mode='slow' is unknown"),
            ({'rng': None}, TypeError, 'give an int or a numpy Generator'),
            ({'rng': np.random.RandomState(0)}, TypeError, 'numpy Generator'),
            ({'rng': np.random.default_rng(0), 'mode': 'exact'}, TypeError, 'numpy RandomState'),
            ({'rng': -1}, ValueError, 'rng=-1 cannot seed'),
            ({'rng': 2**32, 'mode': 'exact'}, ValueError, 'from 0 to'),
        ],
    )
    def test_refuses_arguments(self, arguments, error, message):
        arguments = {'name': 'fog', 'severity': 3, **arguments}
        with pytest.raises(error, match=message):
            corrupt(np.zeros((40, 40, 3), np.uint8), **arguments)


class TestCorruptionSeed:
    def test_golden_number(self):
        assert corruption_seed(0, '000001', 'fog', 3) == 37295479750141401554759298417982685871

    def test_every_argument_counts(self):
        seeds = {
            corruption_seed(*key)
            for key in [
                (0, '1', 'fog', 3),
                (1, '1', 'fog', 3),
                (0, '2', 'fog', 3),
                (0, '1', 'contrast', 3),
                (0, '1', 'fog', 4),
                (0, '11', 'fog', 3),
            ]
        }
        assert len(seeds) == 6

    def test_id_may_be_a_number(self):
        assert corruption_seed(0, 7, 'fog', 3) == corruption_seed(0, '7', 'fog', 3)
