# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""ImageNet-C as published, as a dataset of mmpretrain."""

from collections.abc import Collection, Sequence
from pathlib import Path

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS

from ..corruptions import check_condition
from .class_folders import find_images, folders_of, imagenet_wnids, read_names

# Archive to the corruptions in it, as published: noise.tar, ..., extra.tar. Whatever this
# package computes beside them is in no archive.
_ARCHIVES = {
    'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
    'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    'weather': ('snow', 'frost', 'fog', 'brightness'),
    'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
    'extra': ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate'),
}
_GROUP_OF = {name: group for group, names in _ARCHIVES.items() for name in names}


@DATASETS.register_module()
class ImageNetC(BaseDataset):
    """One condition of ImageNet-C (arXiv:1903.12261) as published: ``fog/3/n01440764/*.JPEG``.

    ``weather/fog/3/...``, as the archives group them, is found as well. The images are 224 x 224
    and were cropped before they were corrupted, so test them without another resize:
    ``LoadImageFromFile``, ``CenterCrop`` with crop_size=224, ``PackInputs``.

    A label is the place of the class folder among the 1000 sorted WordNet ids of ILSVRC2012,
    whatever folders there are.

    Args:
        data_root (str): Folder with ``fog/`` or ``weather/fog/``.
        corruption (str): One of ``CORRUPTIONS``.
        severity (int): 1 (light) to 5 (heavy).
        subset (str | Sequence[str] | None): Class folders to test on, or a text file with one a
            line. Defaults to None, all.
        wnids (str | Sequence[str] | None): Class folders in the order of the labels, or a text
            file, for a set of other classes. Defaults to None, ILSVRC2012's.
        images_per_class (int | None): How many each class must have; None for any number.
            Defaults to 50, as published.
        **kwargs: Everything else that mmpretrain's BaseDataset takes.

    Raises:
        FileNotFoundError: If data_root, the corruption, the severity or class folders are missing.
        TypeError: If an argument is of another type.
        ValueError: If an argument has no such value, or the folders are not those of the classes.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def __init__(
        self,
        data_root: str,
        corruption: str,
        severity: int,
        subset: str | Sequence[str] | None = None,
        wnids: str | Sequence[str] | None = None,
        images_per_class: int | None = 50,
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        if corruption == 'none':
            raise ValueError(
                "corruption='none' is not in ImageNet-C: for clean images use dict("
                "type='ImageNet', data_root='data/imagenet', split='val')"
            )
        check_published('ImageNet-C', corruption, severity)
        self.corruption = corruption
        self.severity = severity
        self.images_per_class = images_per_class
        self.subset = None if subset is None else read_names('subset', subset)
        self.wnids = imagenet_wnids() if wnids is None else read_names('wnids', wnids)
        if wnids is not None:
            metainfo = {'classes': self.wnids, **(metainfo or {})}
        super().__init__(ann_file='', data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Find the condition, check its folders, and list the images."""
        folder = find_condition(self.data_root, self.corruption, self.severity)
        images = find_images(folder, self.wnids, self.images_per_class, self.subset)
        print_log(f'ImageNetC: {len(images)} images from {folder}', 'current')
        return images

    @staticmethod
    def settings_for(labels: Collection[int], **settings) -> dict:
        """Return settings that restrict the dataset to the classes of a clean test set.

        Args:
            labels (Collection[int]): Labels of that set.
            **settings: Settings of the config, which have priority.

        Returns:
            dict: All settings.
        """
        wnids = settings.get('wnids')
        names = imagenet_wnids() if wnids is None else read_names('wnids', wnids)
        return {'subset': folders_of(labels, names), 'images_per_class': None, **settings}

    @staticmethod
    def find(data_root: str, corruption: str, severity: int) -> Path:
        """Return the folder of a condition, without reading an image."""
        return find_condition(data_root, corruption, severity)

    def extra_repr(self) -> list[str]:
        """Return a line for the dataset's repr."""
        return [f'Condition: \t{self.corruption} {self.severity} in {self.data_root}']


def check_published(name: str, corruption: str, severity: int) -> None:
    """Raise an error if ImageNet-C and CIFAR-10-C, which have the same ones, lack a condition.

    Args:
        name (str): What the set is called, for the message.
        corruption (str): The corruption.
        severity (int): Its severity.

    Raises:
        TypeError: If the corruption is no str or the severity no int.
        ValueError: If there is no such corruption or severity, or they were published without.
    """
    check_condition(corruption, severity)
    if corruption not in _GROUP_OF:
        raise ValueError(
            f'corruption={corruption!r} is not in {name}, which has {", ".join(_GROUP_OF)}: '
            f'compute it instead of reading it'
        )


def find_condition(data_root: str, corruption: str, severity: int) -> Path:
    """Find the folder of a corruption at a severity, with or without the group's folder above it.

    Args:
        data_root (str): Where to look.
        corruption (str): One of ``CORRUPTIONS``.
        severity (int): 1 to 5.

    Returns:
        Path: The folder.

    Raises:
        FileNotFoundError: If it is in neither place.
        ValueError: If it is in both, or is none of ImageNet-C's.
    """
    check_published('ImageNet-C', corruption, severity)
    root = Path(data_root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f'data_root={data_root!r} is not a folder: set it to where ImageNet-C is unpacked'
        )
    group = _GROUP_OF[corruption]
    places = [root / corruption, root / group / corruption]
    found = [place for place in places if place.is_dir()]
    if len(found) > 1:
        raise ValueError(
            f'data_root={data_root!r} has both {corruption}/ and {group}/{corruption}/: move one '
            f'of them away, or set data_root to {str(root / group)!r}'
        )
    if not found:
        raise FileNotFoundError(
            f'data_root={data_root!r} has neither {corruption}/ nor {group}/{corruption}/ '
            f'({_folders(root)}): unpack {group}.tar there, or set data_root to the folder that '
            'holds it'
        )
    if not (found[0] / str(severity)).is_dir():
        raise FileNotFoundError(
            f'{str(found[0])!r} has no folder for severity={severity} ({_folders(found[0])}): '
            f'unpack {group}.tar anew'
        )
    return found[0] / str(severity)


def _folders(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    # A corruption has 5 severities and ImageNet-C 19 corruptions: 20 names show either.
    return f'only {", ".join(names[:20])}' if names else 'it has no folders'
