# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Pascal-C as a dataset of mmdet, computed while images are loaded."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS

from ...integration import split_after_loading
from .image_files import read_image
from .transforms import ImageCorruption
from .voc_annotations import check_annotations
from .voc_files import check_voc_dataset


@DATASETS.register_module()
class CorruptedVOCDataset(VOCDataset):
    """VOC whose images are corrupted as they are loaded: Pascal-C, without storing it.

    With ``corruption='none'`` it is VOCDataset with a check of all files before it starts, for
    training and for clean tests. ``metainfo=dict(classes=...)`` makes it read other classes than
    VOC's, and VOCMetric then prints those.

    Args:
        corruption (str): One of ``CORRUPTIONS``, or 'none'. Defaults to 'none'.
        severity (int): 1 (light) to 5 (heavy). Defaults to 1.
        seed (int): Seed of the benchmark, see :class:`ImageCorruption`. Defaults to 0.
        mode (str): 'fast', or 'exact' for the draws of the published code. Defaults to 'fast'.
        pipeline (Sequence[dict | Callable]): As for VOCDataset. ImageCorruption is put right
            behind its image-loading step. Defaults to ().
        **kwargs: Everything else that VOCDataset takes.

    Raises:
        FileNotFoundError: If data_root, the list of images or any file it names is missing.
        TypeError: If the severity or the seed is no int.
        ValueError: If there is no such corruption, severity or mode, no step loads an image, or an
            annotation file is damaged.
    """

    def __init__(
        self,
        corruption: str = 'none',
        severity: int = 1,
        seed: int = 0,
        mode: str = 'fast',
        pipeline: Sequence[dict | Callable] = (),
        **kwargs,
    ) -> None:
        step = ImageCorruption(corruption, severity, seed, mode=mode)
        if corruption != 'none':
            loading, rest = split_after_loading('CorruptedVOCDataset.pipeline', pipeline)
            pipeline = [*loading, step, *rest]
        super().__init__(pipeline=pipeline, **kwargs)
        # With dataset_type 'VOC2007' VOCMetric (mmdet 3.3) prints VOC's own names, whatever the
        # classes are. With None it takes the names from the metainfo. Nothing else depends on it:
        # 11 points are the metric's default, and the type only makes it warn of other modes.
        if tuple(self._metainfo['classes']) != VOCDataset.METAINFO['classes']:
            self._metainfo['dataset_type'] = None

    def load_data_list(self) -> list[dict]:
        """Check that every file is there, then read the annotations.

        Raises:
            ValueError: If an annotation file is damaged. Names it.
        """
        check_voc_dataset(self)
        try:
            return super().load_data_list()
        except Exception:  # which names no file
            check_annotations(self)
            raise

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline; the error of an image that cannot be read names the image.

        Raises:
            OSError: If the image cannot be decoded.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            # OpenCV raises an error for an empty file without naming the file.
            if os.path.isfile(path) and read_image(path) is None:
                raise OSError(
                    f'{path} is no readable image: replace it, or take it out of {self.ann_file}'
                ) from error
            raise
