# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from ..registration import mmdet_works, mmpretrain_works
from .corruptions import CORRUPTIONS, EXTRAS, GROUPS, corrupt, corruption_seed
from .transforms import ImageCorruption
from .voc_files import check_voc_dataset, check_voc_files

__all__ = [
    'CORRUPTIONS',
    'EXTRAS',
    'GROUPS',
    'ImageCorruption',
    'check_voc_dataset',
    'check_voc_files',
    'corrupt',
    'corruption_seed',
]

if mmdet_works():
    from .corrupted_voc import CorruptedVOCDataset

    __all__ += ['CorruptedVOCDataset']

if mmpretrain_works():
    from .cifar10_c import CIFAR10C
    from .imagenet_c import ImageNetC
    from .imagenet_v2 import ImageNetV2

    __all__ += ['CIFAR10C', 'ImageNetC', 'ImageNetV2']
