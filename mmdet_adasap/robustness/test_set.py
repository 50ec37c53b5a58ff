# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""From the dataloaders of several configs to one set of images that all of them share."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, FUNCTIONS

from ..integration.configs import (
    split_after_cropping,
    split_after_loading,
    type_name,
    without_pipeline,
)
from .datasets import check_voc_dataset
from .datasets.multi_view import MultiViewImages, known_of
from .datasets.published import PublishedImages
from .protocol import choose_subset, digest_of_images

PUBLISHED = {'ImageNetC': ('ImageNet', '--imagenet-c'), 'CIFAR10C': ('CIFAR10', '--cifar10-c')}
"""Datasets of corrupted images: those of the clean ones, and the tool's option to read both."""


@dataclass
class TestSet:
    """The images to test on, and how each config prepares them.

    Attributes:
        images (MultiViewImages): The images.
        views (list[int]): For each dataloader the number of its pipeline in ``images``.
        collate (Callable): Makes a batch of samples.
        metainfo (dict): The dataset's, with its 'classes'.
        described (dict): Type, number of images and their digest, for the protocol.
        labels (frozenset[int]): Those of the whole set, of which ``images`` may be a part; empty
            where images have none.
    """

    images: MultiViewImages
    views: list[int]
    collate: Callable
    metainfo: dict
    described: dict
    labels: frozenset[int]

    @property
    def ids(self) -> list[str | int]:
        """The id of each image."""
        return [self.images.info(i)['img_id'] for i in range(len(self.images))]


def build_test_set(
    dataloaders: Mapping[str, Mapping],
    subset: int | None = None,
    seed: int = 0,
    key: str = 'test_dataloader',
    mode: str = 'fast',
    published: Mapping | None = None,
    fewer: bool = False,
) -> TestSet:
    """Build the dataset of several configs, once, and the pipeline of each.

    Args:
        dataloaders (Mapping[str, Mapping]): The test_dataloader of each config, by a name for
            messages.
        subset (int, optional): How many images to take, always the same. Defaults to all.
        seed (int): Seed of the corruptions. Defaults to 0.
        key (str): What the configs call it, for messages. Defaults to 'test_dataloader'.
        mode (str): Of the corruptions, 'fast' or 'exact'. Defaults to 'fast'.
        published (Mapping, optional): A set of corrupted images to read instead of computing
            them, as for :class:`~mmdet_adasap.robustness.datasets.published.PublishedImages`.
        fewer (bool): Whether a set with fewer images than ``subset`` is taken whole. Defaults to
            False: it is refused.

    Raises:
        FileNotFoundError: If a file of the dataset is missing.
        ValueError: If the configs have different images, annotations, classes or collate_fn, there
            are no images, or a pipeline loads none or corrupts by itself.
    """
    first, dataset, known = '', None, None
    pipelines: dict[str, tuple[Callable, Callable]] = {}
    loadings: dict[str, Callable] = {}
    built: dict[str, tuple[Any, _Known]] = {}
    views = []
    for name, dataloader in dataloaders.items():
        config, pipeline = without_pipeline(_plain(dataloader['dataset']))
        _refuse_corrupted(f'{name}: {key}', config, pipeline)
        same = _key(config)
        if same not in built:
            built[same] = _build(f'{name}: {key}', config)
        other, found = built[same]
        if dataset is None:
            first, dataset, known = name, other, found
        elif found != known:
            raise ValueError(
                f'{name}: {key}.dataset has other images, annotations or classes than '
                f'that of {first}; models are compared on the same ones: run them apart, or give '
                f'both configs the same dataset'
            )
        same = _key(pipeline)
        if same not in pipelines:
            classified = 'gt_label' in known_of(dataset, 0)
            split = split_after_cropping if classified else split_after_loading
            before, after = split(f'{key}.dataset.pipeline', pipeline)
            loading = loadings.setdefault(_key(before), Compose(copy.deepcopy(before)))
            pipelines[same] = loading, Compose(copy.deepcopy(after))
        views.append(list(pipelines).index(same))
    if fewer and subset is not None:
        subset = min(subset, len(known.ids))
    indices = choose_subset(known.ids, subset)
    parts, folder = list(pipelines.values()), _folder(dataset)
    if published:
        images = PublishedImages(dataset, indices, parts, published, folder)
    else:
        images = MultiViewImages(dataset, indices, parts, seed, mode, folder)
    described = {
        'type': type(dataset).__name__,
        'images': len(indices),
        'of': len(known.ids),
        'sha256': digest_of_images([images.info(i) for i in range(len(images))]),
        **({'labels': len(known.labels)} if known.labels else {}),
    }
    collate = _collate(dataloaders, key)
    return TestSet(images, views, collate, dict(dataset.metainfo), described, known.labels)


class _Known(NamedTuple):
    """What has to be the same for two configs to have the same images."""

    ids: list[str | int]
    digest: str
    classes: Sequence[str] | None
    labels: frozenset[int]


def _build(where: str, config: dict) -> tuple[Any, _Known]:
    try:
        dataset = DATASETS.build(ConfigDict(copy.deepcopy(config)))
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        check_voc_dataset(dataset)
    except OSError:
        raise
    except ValueError as error:
        raise ValueError(f'{where}.dataset: {error}') from error
    except Exception as error:
        raise ValueError(
            f'{where}.dataset cannot be built ({type(error).__name__}: {error})'
        ) from error
    folder = _folder(dataset)
    infos = [known_of(dataset, i, folder) for i in range(len(dataset))]
    ids = [info['img_id'] for info in infos]
    labels = frozenset(
        info['gt_label'] for info in infos if isinstance(info.get('gt_label'), Integral)
    )
    _check_labels(where, infos, len(dataset.metainfo.get('classes') or ()))
    return dataset, _Known(ids, digest_of_images(infos), dataset.metainfo.get('classes'), labels)


def _check_labels(where: str, infos: Sequence[Mapping], classes: int) -> None:
    for info in infos:
        label = info.get('gt_label')
        if isinstance(label, Integral) and (label < 0 or 0 < classes <= label):
            known = f'from 0 to {classes - 1}' if classes else 'of 0 or more'
            raise ValueError(
                f'{where}.dataset: the label of {info["img_id"]} is {label}, and labels are '
                f'{known}: test on a split that has labels, and count them from 0'
            )


def _folder(dataset: Any) -> str:
    """Where a dataset of mmpretrain has its images."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    return prefixes.get('img_path') or getattr(dataset, 'data_root', None) or ''


def _refuse_corrupted(where: str, config: Mapping, pipeline: Sequence[Mapping]) -> None:
    corruption = _corruption(config)
    if corruption != 'none' or 'ImageCorruption' in map(type_name, pipeline):
        raise ValueError(
            f'{where}.dataset corrupts its images already ({corruption}), and clean ones are '
            f'needed here: {_instead(type_name(config))}'
        )


def _instead(kind: str) -> str:
    if kind in PUBLISHED:
        clean, option = PUBLISHED[kind]
        return f'use {clean}; {option} then reads the corrupted images of {kind}'
    return "leave out ImageCorruption, and set corruption='none'"


def _corruption(config: Mapping) -> str:
    """That of a dataset, or of one that it is around."""
    inner = config.get('datasets') or config.get('dataset') or []
    found = [_corruption(one) for one in ([inner] if isinstance(inner, Mapping) else inner)]
    found.append(config.get('corruption', 'none'))
    return next((each for each in found if each != 'none'), 'none')


def _collate(dataloaders: Mapping[str, Mapping], key: str) -> Callable:
    usual = dict(type='pseudo_collate')
    found = {name: dict(one.get('collate_fn') or usual) for name, one in dataloaders.items()}
    first, config = next(iter(found.items()))
    other = next((name for name in found if found[name] != config), None)
    if other is not None:
        raise ValueError(
            f'{other}: {key}.collate_fn is {found[other]}, and that of {first} {config}; images '
            f'are put into batches once for all: give both the same one'
        )
    kind = config.pop('type')
    return partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **config)


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else dict(value)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
