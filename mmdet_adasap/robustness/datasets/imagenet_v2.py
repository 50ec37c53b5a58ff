# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""ImageNet-V2 as published, as a dataset of mmpretrain."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS

from ..benchmark import IMAGENET_V2_DEFAULT, IMAGENET_V2_FOLDERS
from .class_folders import find_images, folders_of, read_names

# In the order of the numbers: sorted as text, '10' would come before '2' and labels be wrong.
_CLASS_FOLDERS = tuple(str(label) for label in range(1000))


@DATASETS.register_module()
class ImageNetV2(BaseDataset):
    """ImageNet-V2 (arXiv:1902.10811) as published: folders '0' to '999', named by their label.

    Args:
        data_root (str): The unpacked folder, or the one that it is in.
        variant (str): 'matched-frequency', 'threshold-0.7' or 'top-images'. Defaults to
            'matched-frequency', which results are usually given for.
        subset (str | Sequence[str] | None): Class folders to test on, or a text file with one a
            line. Defaults to None, all.
        images_per_class (int | None): How many each class must have; None for any number.
            Defaults to 10, as published.
        **kwargs: Everything else that mmpretrain's BaseDataset takes.

    Raises:
        FileNotFoundError: If data_root, the variant or class folders are missing.
        ValueError: If there is no such variant, or the folders are not those of the classes.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def __init__(
        self,
        data_root: str,
        variant: str = IMAGENET_V2_DEFAULT,
        subset: str | Sequence[str] | None = None,
        images_per_class: int | None = 10,
        **kwargs,
    ) -> None:
        if variant not in IMAGENET_V2_FOLDERS:
            raise ValueError(
                f'variant={variant!r} is unknown: use one of {", ".join(IMAGENET_V2_FOLDERS)}'
            )
        self.variant = variant
        self.images_per_class = images_per_class
        self.subset = None if subset is None else read_names('subset', subset)
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    @staticmethod
    def settings_for(labels: Collection[int], **settings) -> dict:
        """Return settings that restrict the dataset to the classes of a test set.

        Args:
            labels (Collection[int]): Labels of that set.
            **settings: Settings of the config, which have priority.

        Returns:
            dict: All settings.
        """
        return {'subset': folders_of(labels, _CLASS_FOLDERS), **settings}

    def load_data_list(self) -> list[dict]:
        """Find the variant, check its folders, and list the images."""
        folder = find_variant(self.data_root, self.variant)
        return find_images(folder, _CLASS_FOLDERS, self.images_per_class, self.subset)

    def extra_repr(self) -> list[str]:
        """Return a line for the dataset's repr."""
        return [f'Variant: \t{self.variant} in {self.data_root}']


def find_variant(data_root: str, variant: str) -> Path:
    """Find the folder of a variant: data_root itself, or the folder in it with the published name.

    Args:
        data_root (str): Where to look.
        variant (str): One of ``IMAGENET_V2_FOLDERS``.

    Returns:
        Path: The folder.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If data_root is another variant's folder.
    """
    root = Path(data_root).expanduser()
    name = IMAGENET_V2_FOLDERS[variant]
    if (root / name).is_dir():
        return root / name
    # realpath: a link often has a shorter name than the folder that it leads to.
    own = os.path.basename(os.path.realpath(root))
    for other, folder in IMAGENET_V2_FOLDERS.items():
        if own == folder and other != variant:
            raise ValueError(
                f'data_root={data_root!r} is {other}: set variant={other!r}, or data_root to '
                f'{name}'
            )
    # A folder of another name is accepted if it has class folders: users rename them.
    if own == name or any((root / label).is_dir() for label in _CLASS_FOLDERS):
        return root
    raise FileNotFoundError(
        f'data_root={data_root!r} has neither {name}/ nor class folders 0 to 999: set it to where '
        f'{name.removesuffix("-format-val")}.tar.gz is unpacked'
    )
