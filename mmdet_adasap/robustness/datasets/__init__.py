# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Datasets whose images are corrupted while they are loaded, and published corrupted ones.

Those that derive from classes of mmdet or mmpretrain are imported and registered when their name
is first used or their library is imported (:mod:`mmdet_adasap.registration`).
"""

from importlib import import_module

from .corrupted_copy import CopySettings, write_corrupted_voc
from .image_files import UNREADABLE_ERRORS, image_name, read_image
from .multi_view import (
    CLEAN,
    Condition,
    MultiViewBatch,
    MultiViewImages,
    Unreadable,
    image_info,
    multi_view_loader,
)
from .published import PublishedImages, restrict_to_labels
from .transforms import ImageCorruption
from .voc_annotations import find_damaged_annotation, objects_left_out
from .voc_files import check_voc_dataset, check_voc_files

# Class to its module. Imported at the top they would need both mmdet and mmpretrain installed.
_LAZY = {
    'CorruptedVOCDataset': 'corrupted_voc',
    'CIFAR10C': 'cifar10_c',
    'ImageNetC': 'imagenet_c',
    'ImageNetV2': 'imagenet_v2',
}

__all__ = [
    'CLEAN',
    'UNREADABLE_ERRORS',
    'Condition',
    'CopySettings',
    'ImageCorruption',
    'MultiViewBatch',
    'MultiViewImages',
    'PublishedImages',
    'Unreadable',
    'check_voc_dataset',
    'check_voc_files',
    'find_damaged_annotation',
    'image_info',
    'image_name',
    'multi_view_loader',
    'objects_left_out',
    'read_image',
    'restrict_to_labels',
    'write_corrupted_voc',
]


def __getattr__(name: str) -> type:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_LAZY[name]}'), name)
