# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import ks_2samp

from _utils.published import published
from builtin_sets.tiny_voc_scenes import PHOTOS, load_photo
from mmdet_adasap.robustness.corruptions import (
    BENCHMARK,
    CORRUPTIONS,
    EXTRAS,
    GROUPS,
    corrupt,
    corruption_seed,
)
from mmdet_adasap.robustness.corruptions import weather as frost_photos

SEVERITIES = (1, 2, 3, 4, 5)
# Pieces of a photograph: usual, odd, very wide and tall ones, and the smallest allowed.
SHAPES = {
    'photo': (slice(0, 150), slice(0, 200)),
    'odd': (slice(7, 110), slice(11, 160)),
    'wide': (slice(200, 233), slice(0, 640)),
    'tall': (slice(0, 427), slice(300, 334)),
    'smallest': (slice(300, 332), slice(100, 132)),
}
RANDOM = (
    *('gaussian_noise', 'shot_noise', 'impulse_noise', 'glass_blur', 'motion_blur', 'snow'),
    *('frost', 'fog', 'elastic_transform', 'speckle_noise', 'spatter'),
)


def assert_as_published(image: np.ndarray, name: str, severity: int, seed: int) -> None:
    expected = published(image, name, severity, seed).astype(int)
    got = corrupt(image, name, severity, seed, mode='exact').astype(int)
    difference = np.abs(got - expected)
    case = f'severity {severity}, seed {seed}, {image.shape}, first pixel {image[0, 0]}'
    assert difference.max() <= 1, case
    assert (difference > 0).any(-1).mean() <= 0.025, case


# Others than these have no published code to be compared with.
PUBLISHED = (*BENCHMARK, *EXTRAS[:4])


class TestExactMode:
    @pytest.mark.parametrize('name', PUBLISHED)
    def test_equals_reference(self, photo, name):
        for shape in SHAPES.values():
            image = photo[shape]
            if name == 'glass_blur':  # whose definition takes seconds in plain Python
                image = image[:60, :60]
            for severity in SEVERITIES:
                assert_as_published(image, name, severity, seed=severity)

    @pytest.mark.slow
    @pytest.mark.parametrize('name', PUBLISHED)
    def test_equals_reference_on_many_images(self, name):
        sizes = ((375, 500), (500, 375), (333, 500), (281, 397), (60, 612), (480, 53))
        names = sorted(PHOTOS)
        for number in range(10):
            image = np.array(load_photo(names[number % len(names)]))
            height, width = sizes[number % len(sizes)]
            image = image[number : number + height, 3 * number : 3 * number + width]
            if name == 'glass_blur':
                image = image[-120:, -160:]
            for severity in SEVERITIES:
                for seed in (0, 1, 2):
                    assert_as_published(image, name, severity, seed)

    @pytest.mark.parametrize('name', PUBLISHED)
    def test_image_of_one_level(self, name):
        for level in (0, 93, 255):
            image = np.full((40, 50, 3), level, np.uint8)
            for severity in SEVERITIES:
                assert_as_published(image, name, severity, seed=1)

    @pytest.mark.parametrize('name', ['brightness', 'snow', 'saturate', 'motion_blur'])
    def test_overexposed_and_grey_images(self, photo, name):
        overexposed = np.minimum(photo[:100, :120].astype(int) + 60, 255).astype(np.uint8)
        grey = np.repeat(photo[200:300, :120, :1], 3, axis=2)
        for severity in SEVERITIES:
            assert_as_published(overexposed, name, severity, seed=2)
            assert_as_published(grey, name, severity, seed=2)

    def test_takes_and_moves_on_a_random_state(self, photo):
        rng = np.random.RandomState(5)
        first = corrupt(photo[:64, :64], 'gaussian_noise', 3, rng, mode='exact')
        second = corrupt(photo[:64, :64], 'gaussian_noise', 3, rng, mode='exact')
        assert np.array_equal(
            first, corrupt(photo[:64, :64], 'gaussian_noise', 3, 5, mode='exact')
        )
        assert not np.array_equal(first, second)


class TestFastMode:
    @pytest.mark.long
    @pytest.mark.parametrize('severity', [1, 5])
    @pytest.mark.parametrize('name', RANDOM)
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
            values[mode + ' mean'] = images.mean(0)
            values[mode + ' variance'] = images.var(0)
        for fast, exact in zip(values['fast'], values['exact'], strict=True):
            assert ks_2samp(fast, exact).pvalue > 0.005
        error = np.sqrt((values['fast variance'] + values['exact variance']).mean() / 200)
        shift = values['fast mean'] - values['exact mean']
        assert np.sqrt((shift**2).mean()) < 1.4 * error + 0.1
        variances = values['fast variance'].mean(), values['exact variance'].mean()
        assert variances[0] == pytest.approx(variances[1], rel=0.15)

    @pytest.mark.parametrize('name', sorted(set(CORRUPTIONS) - set(RANDOM)))
    def test_what_draws_nothing_is_as_in_exact_mode(self, photo, name):
        image = photo[100:240, 200:348]
        for severity in SEVERITIES:
            fast = corrupt(image, name, severity).astype(int)
            difference = np.abs(fast - corrupt(image, name, severity, 0, 'exact'))
            assert difference.max() <= (1 if name == 'gaussian_blur' else 0)
            assert difference.mean() < 0.03

    @pytest.mark.parametrize(('severity', 'photons'), [(1, 60), (3, 12), (5, 3)])
    def test_shot_noise_has_the_probabilities_of_its_definition(self, severity, photons):
        for level in (9, 100, 255):
            image = np.full((300, 300, 3), level, np.uint8)
            counts = corrupt(image, 'shot_noise', severity, 4) / 255 * photons
            counts = np.bincount(np.rint(counts).astype(int).ravel(), minlength=photons + 1)
            draws = np.random.default_rng(0).poisson(level / 255 * photons, image.size)
            expected = np.bincount(np.minimum(draws, photons), minlength=photons + 1)
            both = counts + expected
            seen = both > 20
            # Of two equal distributions, chi^2 has one degree of freedom a cell.
            chi2 = ((counts - expected)[seen] ** 2 / both[seen]).sum()
            assert chi2 < seen.sum() + 4 * np.sqrt(2 * seen.sum())

    def test_impulse_noise_has_the_shares_of_its_table(self):
        image = np.full((300, 300, 3), 77, np.uint8)
        for severity, share in enumerate((0.03, 0.06, 0.09, 0.17, 0.27), start=1):
            noisy = corrupt(image, 'impulse_noise', severity, 3)
            assert (noisy == 0).mean() == pytest.approx(share / 2, abs=0.002)
            assert (noisy == 255).mean() == pytest.approx(share / 2, abs=0.002)
            assert np.isin(noisy, (0, 77, 255)).all()

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
    def test_depends_on_its_arguments_alone(self, photo, mode):
        image = photo[:70, :91].copy()
        before = image.copy()
        for name in CORRUPTIONS:
            first = corrupt(image, name, 2, 11, mode)
            np.random.normal(size=3)
            assert np.array_equal(first, corrupt(image, name, 2, 11, mode)), name
            assert np.array_equal(image, before), name
            assert first.shape == image.shape, name
            assert first.dtype == np.uint8, name

    @pytest.mark.parametrize('mode', ['fast', 'exact'])
    def test_leaves_the_global_generator_alone(self, photo, mode):
        for name in CORRUPTIONS:
            np.random.seed(0)
            corrupt(photo[:64, :64], name, 3, 1, mode)
            after = np.random.random()
            np.random.seed(0)
            assert after == np.random.random(), name

    def test_takes_views(self, photo):
        view = photo[:64, 64:0:-1, ::-1]
        for name in CORRUPTIONS:
            assert np.array_equal(corrupt(view, name, 3), corrupt(view.copy(), name, 3)), name

    @pytest.mark.parametrize('mode', ['fast', 'exact'])
    def test_seeds_differ_where_something_is_drawn(self, photo, mode):
        image = photo[:64, :64]
        for name in CORRUPTIONS:
            one, other = (corrupt(image, name, 3, seed, mode) for seed in (0, 1))
            assert np.array_equal(one, other) == (name not in RANDOM), name

    def test_groups_are_those_of_the_benchmark(self):
        assert GROUPS == {
            'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
            'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
            'weather': ('snow', 'frost', 'fog', 'brightness'),
            'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
        }
        assert EXTRAS[:4] == ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate')
        assert [name for group in GROUPS.values() for name in group] == list(BENCHMARK)
        assert [*BENCHMARK, *EXTRAS] == list(CORRUPTIONS)

    def test_the_set_is_closed(self, photo, monkeypatch):
        """Other processes and reports would not know one that a user adds."""
        monkeypatch.setitem(CORRUPTIONS, 'haze', CORRUPTIONS['fog'])
        with pytest.raises(ValueError, match=r"'haze' was added to CORRUPTIONS.* shifted_sets"):
            corrupt(photo[:64, :64], 'haze', 3)

    @pytest.mark.parametrize('name', CORRUPTIONS)
    def test_any_size(self, photo, name):
        tiled = np.tile(photo[250:], (6, 3, 1))
        for height, width in ((32, 32), (32, 33), (61, 47), (32, 1500), (900, 33)):
            image = tiled[:height, :width]
            for severity in SEVERITIES:
                got = corrupt(image, name, severity)
                assert got.shape == image.shape, severity
                assert got.std() > 1, (image.shape, severity)

    def test_spatter_without_a_drop_leaves_a_small_image(self, photo):
        # The published code divides by 0 then, and gives a black image.
        image = photo[300:332, 100:132]
        dry = [
            seed
            for seed in range(100)
            if np.array_equal(corrupt(image, 'spatter', 1, seed, 'exact'), image)
        ]
        assert dry
        with np.errstate(invalid='ignore'):
            assert not published(image, 'spatter', 1, dry[0]).any()

    def test_needs_neither_scipy_nor_scikit_image_nor_numba(self):
        # Frost included, whose photographs lie in a package that needs all of them.
        code = """
import sys
for name in ('scipy', 'skimage', 'numba', 'wand', 'pkg_resources'):
    sys.modules[name] = None
import numpy as np
from mmdet_adasap.robustness.corruptions import CORRUPTIONS, corrupt
for name in CORRUPTIONS:
    for mode in ('fast', 'exact'):
        corrupt(np.full((40, 40, 3), 99, np.uint8), name, 3, 0, mode)
assert 'imagecorruptions' not in sys.modules
"""
        subprocess.run([sys.executable, '-c', code], check=True)

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
            ({'name': 'xyz'}, ValueError, "'xyz' is unknown; use one of gaussian_noise"),
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


class TestFrostPhotos:
    @pytest.fixture(autouse=True)
    def forgetful(self):
        frost_photos._photo.cache_clear()
        frost_photos._enlarged_photo.cache_clear()
        yield
        frost_photos._photo.cache_clear()
        frost_photos._enlarged_photo.cache_clear()

    def test_without_a_package(self, monkeypatch):
        monkeypatch.setattr(frost_photos, 'package_folder', lambda name: None)
        with pytest.raises(FileNotFoundError, match=r'pip install .*imagecorruptions-imaug'):
            corrupt(np.zeros((40, 40, 3), np.uint8), 'frost', 1)

    def test_unreadable(self, monkeypatch, tmp_path):
        (tmp_path / 'frost').mkdir()
        for name in frost_photos.FROST_PHOTOS:
            (tmp_path / 'frost' / name).write_bytes(b'no image')
        monkeypatch.setattr(frost_photos, 'package_folder', lambda name: tmp_path)
        with pytest.raises(FileNotFoundError, match=r'frost\d\.(png|jpg).* no readable image'):
            corrupt(np.zeros((40, 40, 3), np.uint8), 'frost', 1)

    def test_all_six_are_drawn(self):
        image = np.zeros((32, 32, 3), np.uint8)
        assert len({corrupt(image, 'frost', 3, seed).tobytes() for seed in range(40)}) > 30
        assert frost_photos._photo.cache_info().currsize == 6


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
