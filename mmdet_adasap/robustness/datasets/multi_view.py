# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Images under many conditions, each loaded and corrupted once for all models that share it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ...errors import LoadingFailedError, one_line
from ..corruptions import check_image
from .image_files import UNREADABLE_ERRORS, failure_reason, image_name, relative_path
from .transforms import ImageCorruption, as_rgb, as_uint8


class Condition(NamedTuple):
    """A corruption at a severity, or ``CLEAN``."""

    corruption: str
    severity: int

    def __str__(self) -> str:
        return 'clean images' if self == CLEAN else f'{self.corruption} {self.severity}'


CLEAN = Condition('none', 0)


CONFIG_ERRORS = (TypeError, KeyError, NameError, ImportError, NotImplementedError, RuntimeError)
"""What a step that loads images raises for a wrong config rather than for a damaged file."""


class Unreadable(NamedTuple):
    """An image that could not be loaded or corrupted, and why."""

    image: str
    error: str


class MultiViewBatch(NamedTuple):
    """A batch of images of one condition, prepared by each pipeline.

    Attributes:
        condition (Condition): The condition.
        positions (list[int]): Numbers of the images that could be read.
        views (list): For each pipeline the input of ``test_step``; empty without positions.
        unreadable (dict[int, Unreadable]): The other images, by their numbers.
    """

    condition: Condition
    positions: list[int]
    views: list
    unreadable: dict[int, Unreadable]


class MultiViewImages(Dataset):
    """Dataset of images under conditions, each prepared by several pipelines.

    It is indexed by (condition, number of the image).

    Args:
        dataset (Dataset): Has ``get_data_info(index)``, as mmengine's BaseDataset.
        indices (Sequence[int]): Which of its images to use; their positions in here are the
            images' numbers.
        pipelines (Sequence[tuple[Callable, Callable]]): Of each pipeline the part up to loading
            the image, and the rest. Parts that are the same object are run once.
        seed (int): Seed of the corruptions. Defaults to 0.
        mode (str): Of the corruptions, 'fast' or 'exact'. Defaults to 'fast'.
        folder (str): Folder of the images. An image without an ``img_id`` gets its path in there
            as id. Defaults to ''.
    """

    def __init__(
        self,
        dataset: Any,
        indices: Sequence[int],
        pipelines: Sequence[tuple[Callable, Callable]],
        seed: int = 0,
        mode: str = 'fast',
        folder: str = '',
    ) -> None:
        self.dataset = dataset
        self.indices = list(indices)
        self.pipelines = list(pipelines)
        self.seed = seed
        self.mode = mode
        self.folder = folder

    def __len__(self) -> int:
        return len(self.indices)

    def info(self, position: int) -> dict:
        """Return the dataset's info of an image, with an ``img_id``."""
        return image_info(self.dataset, self.indices[position], self.folder)

    def __getitem__(self, key: tuple[Condition, int]) -> tuple:
        """Return the key, and the image prepared by each pipeline or an Unreadable."""
        condition, position = key
        info = self.info(position)
        loaded, views = {}, []
        try:
            for loading, rest in self.pipelines:
                if id(loading) not in loaded:
                    loaded[id(loading)] = self.load(condition, info, loading)
                # The rest may change the image in place, and the next pipeline needs it too.
                views.append(rest(copy.deepcopy(loaded[id(loading)])))
        except UNREADABLE_ERRORS as error:
            return key, Unreadable(image_name(info), failure_reason(error, info))
        return key, views

    def picture(self, condition: Condition, position: int, view: int = 0) -> np.ndarray:
        """Return an image under a condition, as a pipeline has it right after the corruption.

        Args:
            condition (Condition): The condition.
            position (int): Number of the image.
            view (int): Number of the pipeline. Defaults to 0.

        Returns:
            ndarray: uint8, (H, W, 3), BGR.

        Raises:
            OSError, ValueError, cv2.error: If it cannot be loaded or corrupted.
        """
        info = self.info(position)
        loading, _ = self.pipelines[view]
        image = as_uint8(self.load(condition, info, loading)['img'])
        return cv2.cvtColor(as_rgb(image, _channel_order(info)), cv2.COLOR_RGB2BGR)

    def load(self, condition: Condition, info: dict, loading: Callable) -> dict:
        """Load an image and corrupt it.

        Args:
            condition (Condition): The condition.
            info (dict): The dataset's info of the image.
            loading (Callable): The part of a pipeline that loads it.

        Returns:
            dict: The results of the pipeline so far, with the corrupted 'img'.

        Raises:
            ValueError: If the pipeline gives no image, or one that cannot be corrupted.
            LoadingFailedError: If the config is wrong, naming the image it was noticed at.
        """
        results = _load_file(info, loading)
        if not results or 'img' not in results:
            raise ValueError('the pipeline gives no image for it')
        # An image that cannot be corrupted is left out of the clean ones as well: all conditions
        # are to be means over the same images.
        try:
            check_image(as_rgb(as_uint8(results['img']), _channel_order(info)))
        except TypeError as error:
            # One file of 16 bits among others, which 'unchanged' leaves so.
            raise ValueError(str(error)) from error
        return ImageCorruption(*condition, self.seed, _channel_order(info), self.mode)(results)


def _channel_order(info: dict) -> str:
    # mmpretrain's datasets with images in memory, as CIFAR10, store RGB. LoadImageFromFile: BGR.
    return 'rgb' if 'img' in info else 'bgr'


def _load_file(info: dict, loading: Callable) -> dict | None:
    """Run the part of a pipeline that loads an image; every error names the file or is its own."""
    try:
        return loading(copy.deepcopy(info))
    except (MemoryError, *UNREADABLE_ERRORS):
        raise
    except CONFIG_ERRORS as error:
        raise LoadingFailedError(f'{image_name(info)}: {one_line(error)}') from error
    except Exception as error:  # decoders have errors of their own, as zlib.error and SyntaxError
        raise ValueError(f'it cannot be decoded ({one_line(error)})') from error


def image_info(dataset: Any, index: int, folder: str = '') -> dict:
    """Return a dataset's info of an image, with an 'img_id' that is the same on every machine.

    Args:
        dataset (Dataset): Has ``get_data_info(index)``.
        index (int): Index of the image in the dataset.
        folder (str): As for :class:`MultiViewImages`.
    """
    info = dataset.get_data_info(index)
    if info.get('img_id') is None:
        path = info.get('img_path')
        info['img_id'] = _path_id(path, folder) if path else info.get('sample_idx', index)
    return info


def _path_id(path: str, folder: str) -> str:
    """Return a path relative to the folder; its last two parts if it is not in there."""
    relative = relative_path(path, folder) if folder else None
    return relative or '/'.join(PurePath(path).parts[-2:])


def multi_view_loader(
    images: MultiViewImages,
    conditions: Sequence[Condition],
    batch_size: int,
    collate: Callable,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader:
    """Build one loader for all conditions, so that workers start once and read ahead across them.

    Args:
        images (MultiViewImages): The images.
        conditions (Sequence[Condition]): In this order.
        batch_size (int): Images in a batch.
        collate (Callable): Makes a batch of what a pipeline gives for each of its images.
        workers (int): Processes that load. Defaults to 0, in this one.
        rank (int): Number of this process among those that share the images. Defaults to 0.
        processes (int): How many they are. Defaults to 1.

    Returns:
        DataLoader: Of :class:`MultiViewBatch`.
    """
    return DataLoader(
        images,
        batch_sampler=list(batches(conditions, len(images), batch_size, rank, processes)),
        num_workers=workers,
        collate_fn=_Collate(collate),
        worker_init_fn=_one_thread,
        # Otherwise a DataLoader draws its seed from PyTorch's global generator, and a training
        # around the test would go on with other random numbers.
        generator=torch.Generator(),
    )


def batches(
    conditions: Sequence[Condition], images: int, batch_size: int, rank: int, processes: int
) -> Iterator[list[tuple[Condition, int]]]:
    """Yield the keys of each batch of one of several processes, condition after condition.

    Processes take whole batches in turn. So a batch holds the same images however many processes
    there are, and results are equal even where they depend on the batch.
    """
    for condition in conditions:
        for start in range(rank * batch_size, images, processes * batch_size):
            yield [(condition, i) for i in range(start, min(start + batch_size, images))]


class _Collate:
    """Make a MultiViewBatch of items; a class, since workers need to pickle it."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[tuple]) -> MultiViewBatch:
        failed = {key[1]: item for key, item in items if isinstance(item, Unreadable)}
        good = [(key[1], item) for key, item in items if not isinstance(item, Unreadable)]
        return MultiViewBatch(
            items[0][0][0],
            [position for position, _ in good],
            [self.collate(list(views)) for views in zip(*(item for _, item in good), strict=True)],
            failed,
        )


def _one_thread(worker: int) -> None:
    # Each worker has one core; OpenCV's threads in all of them would compete.
    cv2.setNumThreads(0)
