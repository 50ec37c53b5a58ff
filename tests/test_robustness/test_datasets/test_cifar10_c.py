# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pickle
import re

import numpy as np
import pytest

pytest.importorskip('mmpretrain')

from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from mmdet_adasap.robustness.datasets import CIFAR10C

SHAPE = (50000, 32, 32, 3)


def save_sparse(path, shape, dtype=np.uint8, rows=()):
    """An .npy file of zeros that takes no room, with some rows filled."""
    array = np.lib.format.open_memmap(path, mode='w+', shape=shape, dtype=dtype)
    for index, row in rows:
        array[index] = row
    array.flush()


@pytest.fixture(scope='module')
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def published(tmp_path_factory, pixels):
    """CIFAR-10-C of which four images of fog 2 are not black."""
    folder = tmp_path_factory.mktemp('data') / 'CIFAR-10-C'
    folder.mkdir()
    save_sparse(folder / 'fog.npy', SHAPE, rows=[(10000 + i, pixels[i]) for i in range(4)])
    labels = np.tile((np.arange(10000) % 10).astype(np.uint8), 5)
    np.save(folder / 'labels.npy', labels)
    return folder


class TestCIFAR10C:
    def test_reads_the_block_of_the_severity(self, published, pixels):
        dataset = CIFAR10C(str(published), 'fog', 2, serialize_data=False)
        assert len(dataset) == 10000
        for index in range(4):
            info = dataset.get_data_info(index)
            assert np.array_equal(info['img'], pixels[index])
            assert (info['gt_label'], info['img_id']) == (index, index)
        assert not dataset.get_data_info(4)['img'].any()
        assert dataset.get_data_info(9999)['gt_label'] == 9

    def test_other_severities_hold_nothing_of_it(self, published):
        for severity in (1, 3):
            dataset = CIFAR10C(str(published), 'fog', severity, indices=4, serialize_data=False)
            assert not any(dataset.get_data_info(index)['img'].any() for index in range(4))

    def test_gives_what_cifar10_gives(self, published, pixels, tmp_path, monkeypatch):
        (tmp_path / 'cifar-10-batches-py').mkdir()
        flat = pixels.transpose(0, 3, 1, 2).reshape(4, -1)
        entry = {'data': flat, 'labels': [0, 1, 2, 3]}
        (tmp_path / 'cifar-10-batches-py' / 'test_batch').write_bytes(pickle.dumps(entry))
        monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)
        settings = {'serialize_data': False, 'pipeline': [{'type': 'PackInputs'}]}
        clean = CIFAR10(str(tmp_path), 'test', **settings)
        config = {'type': 'CIFAR10C', 'data_root': str(published.parent), 'corruption': 'fog'}
        corrupted = DATASETS.build({**config, 'severity': 2, 'indices': 4, **settings})
        assert corrupted.CLASSES == clean.CLASSES
        for index in range(4):
            one, other = clean[index], corrupted[index]
            assert one['inputs'].equal(other['inputs'])
            assert one['data_samples'].gt_label.equal(other['data_samples'].gt_label)

    def broken(self, published, tmp_path, name: str):
        """A copy whose file of this name is left out."""
        for file in published.iterdir():
            if file.name != name:
                (tmp_path / file.name).symlink_to(file)
        return tmp_path / name

    @pytest.mark.parametrize(
        ('name', 'shape', 'dtype', 'message'),
        [
            ('fog.npy', (10000, 32, 32, 3), np.uint8, 'holds uint8 of shape (10000, 32, 32, 3)'),
            ('fog.npy', (50000, 3, 32, 32), np.uint8, 'instead of uint8 of shape (50000, 32'),
            ('fog.npy', SHAPE, np.int8, 'holds int8 of shape (50000, 32, 32, 3)'),
            ('labels.npy', (50000, 1), np.uint8, 'holds uint8 of shape (50000, 1)'),
            ('labels.npy', (50000,), np.float32, 'float32 of shape (50000,) instead of integers'),
        ],
    )
    def test_names_files_with_another_array(
        self, published, tmp_path, name, shape, dtype, message
    ):
        save_sparse(self.broken(published, tmp_path, name), shape, dtype)
        with pytest.raises(ValueError, match=f'{name}.*{re.escape(message)}'):
            CIFAR10C(str(tmp_path), 'fog', 2)

    @pytest.mark.parametrize('content', ['empty', 'text', 'cut', 'objects', 'npz'])
    def test_names_files_that_are_no_npy(self, published, tmp_path, content):
        path = self.broken(published, tmp_path, 'fog.npy')
        if content == 'objects':
            np.save(path, np.array([{'a': 1}], dtype=object))
        elif content == 'npz':
            with path.open('wb') as file:
                np.savez(file, a=1)
        else:
            whole = (published / 'labels.npy').read_bytes()
            path.write_bytes({'empty': b'', 'text': b'fog', 'cut': whole[:1000]}[content])
        with pytest.raises(ValueError, match=r'fog\.npy.*unpack CIFAR-10-C\.tar anew'):
            CIFAR10C(str(tmp_path), 'fog', 2)

    @pytest.mark.parametrize('name', ['fog.npy', 'labels.npy'])
    def test_names_missing_files(self, published, tmp_path, name):
        self.broken(published, tmp_path, name)
        other = ({'fog.npy', 'labels.npy'} - {name}).pop()
        with pytest.raises(FileNotFoundError, match=rf"{name}' does not exist \(only {other}\)"):
            CIFAR10C(str(tmp_path), 'fog', 2)

    def test_refuses_the_labels_of_another_set(self, published, tmp_path):
        np.save(self.broken(published, tmp_path, 'labels.npy'), np.arange(50000) % 100)
        with pytest.raises(ValueError, match=r'labels from 0 to 99 instead of 0 to 9'):
            CIFAR10C(str(tmp_path), 'fog', 2)

    def test_refuses_conditions(self, published):
        with pytest.raises(ValueError, match=r"not in CIFAR-10-C.*type='CIFAR10'"):
            CIFAR10C(str(published), 'none', 1)
        with pytest.raises(ValueError, match='severity=6'):
            CIFAR10C(str(published), 'fog', 6)
