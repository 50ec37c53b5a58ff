# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""CIFAR-10-C as published, as a dataset of mmpretrain."""

from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import CIFAR10_CATEGORIES
from mmpretrain.registry import DATASETS

from ..corruptions import SEVERITIES
from .imagenet_c import check_published

# As in CIFAR-10-C.tar: each .npy has the 10000 test images at severity 1, then at 2, up to 5.
FOLDER = 'CIFAR-10-C'
IMAGES = 10000
REMEDY = f'unpack CIFAR-10-C.tar anew and set data_root to {FOLDER}'


@DATASETS.register_module()
class CIFAR10C(BaseDataset):
    """One condition of CIFAR-10-C (arXiv:1903.12261) as published: ``fog.npy``, ``labels.npy``.

    It gives what mmpretrain's CIFAR10 gives, 'img' as uint8, (32, 32, 3), RGB, so that CIFAR10's
    test pipeline and data_preprocessor (``to_rgb=False``) go with it.

    Args:
        data_root (str): The folder CIFAR-10-C, or the one that it is in.
        corruption (str): One of ``CORRUPTIONS``.
        severity (int): 1 (light) to 5 (heavy).
        **kwargs: Everything else that mmpretrain's BaseDataset takes.

    Raises:
        FileNotFoundError: If data_root or one of the two files is missing.
        TypeError: If an argument is of another type.
        ValueError: If an argument has no such value, or a file holds anything but 50000 images
            or labels.
    """

    METAINFO = {'classes': CIFAR10_CATEGORIES}

    def __init__(self, data_root: str, corruption: str, severity: int, **kwargs) -> None:
        if corruption == 'none':
            raise ValueError(
                "corruption='none' is not in CIFAR-10-C: for clean images use dict("
                "type='CIFAR10', data_root='data/cifar10', split='test')"
            )
        check_published('CIFAR-10-C', corruption, severity)
        self.corruption = corruption
        self.severity = severity
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the 10000 images of the severity; 'img_id' is the number in CIFAR-10's test set."""
        file = self.find(self.data_root, self.corruption, self.severity)
        folder = file.parent
        images = _rows(file, (32, 32, 3), np.uint8, 'uint8')
        labels = _rows(folder / 'labels.npy', (), np.integer, 'integers')
        block = slice((self.severity - 1) * IMAGES, self.severity * IMAGES)
        # The file is mapped; np.array copies one severity of five into memory.
        images, labels = np.array(images[block]), labels[block].tolist()
        if not 0 <= min(labels) <= max(labels) < 10:
            raise ValueError(
                f'{str(folder / "labels.npy")!r} has labels from {min(labels)} to {max(labels)} '
                'instead of 0 to 9: use the one of CIFAR-10-C.tar'
            )
        return [
            {'img': image, 'gt_label': label, 'img_id': index}
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        ]

    @staticmethod
    def find(data_root: str, corruption: str, severity: int) -> Path:
        """Return the file of a corruption, which holds all severities.

        Raises:
            FileNotFoundError: If it is not there.
        """
        root = Path(data_root).expanduser()
        folder = root / FOLDER if (root / FOLDER).is_dir() else root
        file = folder / f'{corruption}.npy'
        _check_exists(file)
        return file

    def extra_repr(self) -> list[str]:
        """Return a line for the dataset's repr."""
        return [f'Condition: \t{self.corruption} {self.severity} in {self.data_root}']


def _check_exists(file: Path) -> None:
    if not file.is_file():
        there = sorted(other.name for other in file.parent.glob('*.npy'))
        only = f' (only {", ".join(there)})' if there else ''
        raise FileNotFoundError(f'{str(file)!r} does not exist{only}: {REMEDY}')


def _rows(path: Path, row: tuple[int, ...], kind: type, kind_name: str) -> np.ndarray:
    """Map an array of 5 x 10000 rows into memory, without reading it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds anything else.
    """
    _check_exists(path)
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{str(path)!r} is no whole .npy file ({error}): {REMEDY}') from error
    shape = (len(SEVERITIES) * IMAGES, *row)
    if not isinstance(array, np.ndarray):
        raise ValueError(f'{str(path)!r} is an .npz archive instead of an .npy file: {REMEDY}')
    if array.shape != shape or not np.issubdtype(array.dtype, kind):
        raise ValueError(
            f'{str(path)!r} holds {array.dtype} of shape {array.shape} instead of {kind_name} of '
            f'shape {shape}: {REMEDY}'
        )
    return array
