# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Images under many conditions, each loaded and corrupted once for all who want it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..corruptions import check_image
from .transforms import ImageCorruption, levels, path_inside


class Condition(NamedTuple):
    """A corruption at a severity; CLEAN for images as they are."""

    corruption: str
    severity: int

    def __str__(self) -> str:
        return 'clean images' if self == CLEAN else f'{self.corruption} {self.severity}'


CLEAN = Condition('none', 0)
NO_IMAGE = (OSError, ValueError, AssertionError, AttributeError, cv2.error)
"""How a file that is no image may fail, also late; a TypeError is the config's."""


class Unreadable(NamedTuple):
    """An image that could not be loaded or corrupted, and why."""

    image: str
    error: str


class MultiViewBatch(NamedTuple):
    """Some images of one condition.

    Attributes:
        condition (Condition): The condition.
        positions (list[int]): Numbers of the images, those that are unreadable left out.
        views (list): For each pipeline what its ``test_step`` takes; empty without positions.
        unreadable (dict[int, Unreadable]): The others.
    """

    condition: Condition
    positions: list[int]
    views: list
    unreadable: dict[int, Unreadable]


class MultiViewImages(Dataset):
    """Gives an image under a condition as several pipelines prepare it.

    Args:
        dataset (Dataset): Says what is known of an image by ``get_data_info(index)``.
        indices (Sequence[int]): Which of its images to use; their positions in here are the
            images' numbers.
        pipelines (Sequence[tuple[Callable, Callable]]): Of each pipeline the part up to loading
            the image, and the rest. Parts that are the same object are run once.
        seed (int): Seed of the corruptions. Defaults to 0.
        mode (str): Of the corruptions, 'fast' or 'exact'. Defaults to 'fast'.
        folder (str): What img_path begins with; the rest is the id of an image that has no other.
            Defaults to ''.
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
        """What the dataset knows of an image."""
        return known_of(self.dataset, self.indices[position], self.folder)

    def __getitem__(self, key: tuple[Condition, int]) -> tuple:
        """The key and the prepared image for each pipeline, or the key and an Unreadable."""
        condition, position = key
        info = self.info(position)
        loaded, views = {}, []
        try:
            for loading, rest in self.pipelines:
                if id(loading) not in loaded:
                    loaded[id(loading)] = self.under(condition, info, loading)
                views.append(rest(copy.deepcopy(loaded[id(loading)])))
        except NO_IMAGE as error:
            return key, Unreadable(_name(info), reason(error, info))
        return key, views

    def seen(self, condition: Condition, position: int, view: int = 0) -> np.ndarray:
        """An image under a condition as a pipeline has it then: (H, W, 3), uint8, BGR.

        Raises:
            OSError, ValueError, cv2.error: If it cannot be loaded or corrupted.
        """
        info = self.info(position)
        loading, _ = self.pipelines[view]
        image = levels(self.under(condition, info, loading)['img'])
        return image if _order(info) == 'bgr' else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def under(self, condition: Condition, info: dict, loading: Callable) -> dict:
        """Load an image and corrupt it.

        Args:
            condition (Condition): The condition.
            info (dict): What the dataset knows of the image.
            loading (Callable): The part of a pipeline that loads it.
        """
        results = loading(copy.deepcopy(info))
        if not results or 'img' not in results:
            raise ValueError('the pipeline gives no image for it')
        # What cannot be corrupted is to be left out of the clean images, too.
        check_image(levels(results['img']))
        return ImageCorruption(*condition, self.seed, _order(info), self.mode)(results)


def _order(info: dict) -> str:
    """mmpretrain's datasets that have their images in memory have them in RGB."""
    return 'rgb' if 'img' in info else 'bgr'


def known_of(dataset: Any, index: int, folder: str = '') -> dict:
    """What a dataset knows of an image, with an 'img_id' that is the same on every machine.

    Args:
        dataset (Dataset): Has ``get_data_info(index)``.
        index (int): Its number in there.
        folder (str): As for :class:`MultiViewImages`.
    """
    info = dataset.get_data_info(index)
    if info.get('img_id') is None:
        path = info.get('img_path')
        info['img_id'] = _of_path(path, folder) if path else info.get('sample_idx', index)
    return info


def _of_path(path: str, folder: str) -> str:
    """A path without the folder that it is in; its last two parts if it is in none."""
    inside = path_inside(path, folder) if folder else None
    return inside or '/'.join(PurePath(path).parts[-2:])


def batches(
    conditions: Sequence[Condition], images: int, batch_size: int, rank: int, processes: int
) -> Iterator[list[tuple[Condition, int]]]:
    """The keys of each batch of one of several processes, condition after condition.

    Whole batches are dealt out, so that a batch is the same one however many processes there are.
    """
    for condition in conditions:
        for start in range(rank * batch_size, images, processes * batch_size):
            yield [(condition, i) for i in range(start, min(start + batch_size, images))]


def multi_view_loader(
    images: MultiViewImages,
    conditions: Sequence[Condition],
    batch_size: int,
    collate: Callable,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader:
    """Load all conditions in one go: workers are started once and read ahead over their borders.

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
        # A generator of its own, so that a training around it draws what it would have drawn.
        generator=torch.Generator(),
    )


class _Collate:
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
    cv2.setNumThreads(0)


def _name(info: dict) -> str:
    return str(info.get('img_path') or info.get('img_id'))


def reason(error: Exception, info: dict) -> str:
    text = ' '.join(str(error).split()) or type(error).__name__
    if isinstance(error, AssertionError | AttributeError | cv2.error):
        text = f'it cannot be decoded ({text})'
    # The file is named beside it.
    return text.removeprefix(f'ImageCorruption on {_name(info)}: ')
