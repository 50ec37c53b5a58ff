# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""ImageCorruption in the pipelines of mmpretrain's own datasets."""

import pickle

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmpretrain')

from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from mmdet_adasap.robustness.corruptions.corrupt import CORRUPTIONS, corrupt, corruption_seed

CORRUPTION = {'type': 'ImageCorruption', 'corruption': 'gaussian_noise', 'severity': 3, 'seed': 5}


def expected(rgb: np.ndarray, image_id: str | int) -> np.ndarray:
    return corrupt(rgb, 'gaussian_noise', 3, corruption_seed(5, image_id, 'gaussian_noise', 3))


def pixels(sample: dict) -> np.ndarray:
    return sample['inputs'].permute(1, 2, 0).numpy()


def loaded(dataset, workers: int, order: list[int], batch_size: int) -> dict[int, np.ndarray]:
    """Pixels of each image from a DataLoader, under its place in the dataset."""
    loader = DataLoader(
        dataset, batch_size, sampler=order, num_workers=workers, collate_fn=pseudo_collate
    )
    return {
        sample.sample_idx: pixels({'inputs': image})
        for batch in loader
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
    }


def assert_nothing_but_the_image_counts(dataset) -> None:
    first = loaded(dataset, 0, [0, 1, 2, 3], 1)
    assert len({image.tobytes() for image in first.values()}) == 4
    for settings in ((0, [2, 0, 3, 1], 3), (2, [3, 1, 0, 2], 1), (2, [0, 1, 2, 3], 3)):
        again = loaded(dataset, *settings)
        assert len(again) == 4
        for place, image in again.items():
            assert np.array_equal(image, first[place])


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def imagenet(tmp_path, photo):
    """Two classes of two images, of equal names and pixels; the config of the set."""
    for name in ('n01/a.png', 'n01/b.png', 'n02/a.png', 'n02/b.png'):
        (tmp_path / 'val' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[:80, :100]).save(tmp_path / 'val' / name)

    def build(*steps: dict) -> object:
        return DATASETS.build(
            {
                'type': 'ImageNet',
                'data_root': str(tmp_path),
                'split': 'val',
                'metainfo': {'classes': ('one', 'two')},
                'serialize_data': False,
                'pipeline': [{'type': 'LoadImageFromFile'}, *steps, {'type': 'PackInputs'}],
            }
        )

    return build


@pytest.fixture
def cifar(tmp_path, monkeypatch, photo):
    (tmp_path / 'cifar-10-batches-py').mkdir()
    images = np.repeat(photo[None, 200:232, 200:232], 4, axis=0)
    entry = {'data': images.transpose(0, 3, 1, 2).reshape(4, -1), 'labels': [0, 1, 2, 3]}
    (tmp_path / 'cifar-10-batches-py' / 'test_batch').write_bytes(pickle.dumps(entry))
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)

    def build(**step) -> object:
        step = {**CORRUPTION, 'channel_order': 'rgb', **step}
        return CIFAR10(
            str(tmp_path),
            'test',
            serialize_data=False,
            pipeline=[step, {'type': 'PackInputs'}],
        )

    return build


class TestImageNet:
    def test_corrupts_what_was_loaded_keyed_by_path(self, imagenet, photo, tmp_path):
        dataset = imagenet({**CORRUPTION, 'data_root': str(tmp_path / 'val')})
        for index, image_id in enumerate(('n01/a.png', 'n01/b.png', 'n02/a.png', 'n02/b.png')):
            rgb = pixels(dataset[index])[..., ::-1]
            assert np.array_equal(rgb, expected(photo[:80, :100], image_id))

    def test_behind_the_crop_as_imagenet_c(self, imagenet, tmp_path):
        crop = (
            {'type': 'ResizeEdge', 'scale': 64, 'edge': 'short'},
            {'type': 'CenterCrop', 'crop_size': 56},
        )
        step = {**CORRUPTION, 'data_root': str(tmp_path / 'val')}
        cropped = pixels(imagenet(*crop)[2])[..., ::-1]
        got = pixels(imagenet(*crop, step)[2])[..., ::-1]
        assert got.shape == (56, 56, 3)
        assert np.array_equal(got, expected(cropped, 'n02/a.png'))
        # Resizing averages the noise: in the other order there is less of it.
        before = pixels(imagenet(step, *crop)[2])[..., ::-1]
        noise = [np.std(image.astype(int) - cropped) for image in (before, got)]
        assert noise[0] < 0.95 * noise[1]

    def test_order_workers_and_batches_change_nothing(self, imagenet, tmp_path):
        step = {**CORRUPTION, 'data_root': str(tmp_path / 'val')}
        assert_nothing_but_the_image_counts(imagenet(step))


class TestCIFAR10:
    def test_corrupts_rgb_keyed_by_place(self, cifar, photo):
        dataset = cifar()
        for index in range(4):
            image = expected(photo[200:232, 200:232], index)
            assert np.array_equal(pixels(dataset[index]), image)

    def test_order_workers_and_batches_change_nothing(self, cifar):
        assert_nothing_but_the_image_counts(cifar())

    @pytest.mark.parametrize('corruption', CORRUPTIONS)
    def test_every_corruption_takes_32_pixels(self, cifar, photo, corruption):
        image = pixels(cifar(corruption=corruption, severity=5)[0])
        assert image.shape == (32, 32, 3)
        assert not np.array_equal(image, photo[200:232, 200:232])
