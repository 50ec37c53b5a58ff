# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The test set: one set of images for the configs of all models, and how each prepares them."""

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, FUNCTIONS

from ..integration import split_after_cropping, split_after_loading, type_name, without_pipeline
from .datasets import (
    MultiViewImages,
    PublishedImages,
    check_voc_dataset,
    find_damaged_annotation,
    image_info,
    objects_left_out,
)
from .protocol import digest, digest_of_images

PUBLISHED = {'ImageNetC': ('ImageNet', '--imagenet-c'), 'CIFAR10C': ('CIFAR10', '--cifar10-c')}
"""Datasets of corrupted images to the one of the clean images, and the option that reads both."""


@dataclass
class TestSet:
    """The images to test on, and how each config prepares them.

    Attributes:
        images (MultiViewImages): The images.
        views (list[int]): For each dataloader the number of its pipeline in ``images``.
        collate (Callable): Makes a batch of samples.
        metainfo (dict): The dataset's metainfo, with its 'classes'.
        description (dict): Type, number of images and their digest, for the protocol.
        labels (frozenset[int]): Labels in the whole set, of which ``images`` may be a part; empty
            where images have none.
        remark (str): What a user should know of the whole set, or ''.
    """

    # pytest would collect it as a class of tests, by its name.
    __test__ = False

    images: MultiViewImages
    views: list[int]
    collate: Callable
    metainfo: dict
    description: dict
    labels: frozenset[int]
    remark: str = ''

    @property
    def ids(self) -> list[str | int]:
        """Ids of the images."""
        return [info['img_id'] for info in self.infos]

    @property
    def infos(self) -> list[dict]:
        """The dataset's infos of the images, each with its 'img_id'."""
        return [self.images.info(i) for i in range(len(self.images))]


def build_test_set(
    dataloaders: Mapping[str, Mapping],
    subset: int | None = None,
    seed: int = 0,
    key: str = 'test_dataloader',
    mode: str = 'fast',
    published: Mapping | None = None,
    allow_fewer: bool = False,
) -> TestSet:
    """Build the dataset that several configs share once, and the pipeline of each.

    Args:
        dataloaders (Mapping[str, Mapping]): The test_dataloader of each config, by the name of
            its model.
        subset (int, optional): How many images to take, always the same. Defaults to all.
        seed (int): Seed of the corruptions. Defaults to 0.
        key (str): Key of the dataloaders in the configs, for messages. Defaults to
            'test_dataloader'.
        mode (str): Mode of the corruptions, 'fast' or 'exact'. Defaults to 'fast'.
        published (Mapping, optional): A set of corrupted images to read instead of computing
            them, as for :class:`~mmdet_adasap.robustness.datasets.published.PublishedImages`.
        allow_fewer (bool): Whether a set with fewer images than ``subset`` is taken whole.
            Defaults to False: it is an error.

    Returns:
        TestSet: The images. Pipelines that are equal are run once for all of their models.

    Raises:
        FileNotFoundError: If a file of the dataset is missing.
        ValueError: If the configs have different images, annotations, classes or collate_fn, there
            are no images, or a pipeline loads none or corrupts by itself.
    """
    configs, pipelines = {}, {}
    for name, dataloader in dataloaders.items():
        configs[name], pipelines[name] = without_pipeline(_to_dict(dataloader['dataset']))
        _check_clean(f'{name}: {key}', configs[name], pipelines[name])
    dataset, identity, folder, remark = _build_shared_dataset(configs, key)
    if allow_fewer and subset is not None:
        subset = min(subset, len(identity.ids))
    indices = choose_subset(identity.ids, subset)
    parts, views = _build_pipelines(pipelines, key, 'gt_label' in image_info(dataset, 0))
    if published:
        images = PublishedImages(dataset, indices, parts, published, folder)
    else:
        images = MultiViewImages(dataset, indices, parts, seed, mode, folder)
    description = {
        'type': type(dataset).__name__,
        'images': len(indices),
        'of': len(identity.ids),
        'sha256': digest_of_images([images.info(i) for i in range(len(images))]),
        **({'labels': len(identity.labels)} if identity.labels else {}),
    }
    collate, metainfo = _shared_collate(dataloaders, key), dict(dataset.metainfo)
    return TestSet(images, views, collate, metainfo, description, identity.labels, remark)


def choose_subset(ids: Sequence[str | int], count: int | None) -> list[int]:
    """Choose the images whose ids have the lowest hashes: the same ones whatever their order.

    A larger subset contains the smaller ones.

    Args:
        ids (Sequence): Ids of the images.
        count (int, optional): How many to take. Defaults to all of them.

    Returns:
        list[int]: Positions in ``ids``, ascending.

    Raises:
        ValueError: If there are no images, or fewer than that.
    """
    if not ids:
        raise ValueError('the dataset has no images: see its ann_file, data_prefix and filter_cfg')
    if count is None:
        return list(range(len(ids)))
    if not 1 <= count <= len(ids):
        raise ValueError(f'subset={count} must be from 1 to {len(ids)}, the images of the set')
    # i decides between equal ids, so that the result is unique.
    hashed = sorted(range(len(ids)), key=lambda i: (digest(str(ids[i])), i))
    return sorted(hashed[:count])


class _SetIdentity(NamedTuple):
    """What has to be equal for two configs to have the same images."""

    ids: list[str | int]
    digest: str
    classes: Sequence[str] | None
    labels: frozenset[int]


class _BuiltSet(NamedTuple):
    """A dataset, what makes it the same as another one, and what is to be said of it.

    Attributes:
        dataset (Any): The dataset.
        identity (_SetIdentity): What has to be equal.
        folder (str): Where ids that are paths begin.
        remark (str): What a user should know, or ''.
    """

    dataset: Any
    identity: _SetIdentity
    folder: str
    remark: str


def _build_shared_dataset(configs: Mapping[str, dict], key: str) -> _BuiltSet:
    """Build the dataset of the first config, and check that the others have the same images."""
    built: dict[str, _BuiltSet] = {}
    first, shared = '', None
    for name, config in configs.items():
        text = _to_text(config)
        # Configs are often equal, and to read annotations may take a minute.
        if text not in built:
            built[text] = _build_dataset(f'{name}: {key}', config)
        if shared is None:
            first, shared = name, built[text]
        elif built[text].identity != shared.identity:
            raise ValueError(
                f'{name}: {key}.dataset has other images, annotations or classes than '
                f'that of {first}; models are compared on the same ones: run them apart, or give '
                f'both configs the same dataset'
            )
    return shared


def _build_dataset(where: str, config: dict) -> _BuiltSet:
    try:
        dataset = DATASETS.build(ConfigDict(copy.deepcopy(config)))
        # BaseDataset(lazy_init=True) has read nothing yet.
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        check_voc_dataset(dataset)
        _check_metainfo(dataset.metainfo)
    except OSError:  # it names its file
        raise
    except Exception as error:
        raise _build_error(f'{where}.dataset', config, error) from error
    folder = _image_folder(dataset)
    infos = [image_info(dataset, i, folder) for i in range(len(dataset))]
    if _is_ambiguous(infos) and hasattr(dataset, 'datasets'):
        # Images that have no ids of their own are told apart by the folders of the sets.
        folder = _common_folder(infos)
        infos = [image_info(dataset, i, folder) for i in range(len(dataset))]
    _check_ids(where, infos)
    ids = [info['img_id'] for info in infos]
    labels = frozenset(
        info['gt_label'] for info in infos if isinstance(info.get('gt_label'), Integral)
    )
    classes = dataset.metainfo.get('classes')
    _check_labels(where, infos, len(classes or ()))
    identity = _SetIdentity(ids, digest_of_images(infos), classes, labels)
    try:
        remark = objects_left_out(infos, classes or ())
    except ValueError as error:
        raise ValueError(f'{where}.dataset: {error}') from error
    return _BuiltSet(dataset, identity, folder, remark)


def _build_error(where: str, config: Mapping, error: Exception) -> ValueError:
    """Return what is wrong with a dataset, by the file if it is one of its annotations."""
    try:
        find_damaged_annotation(config)
    except ValueError as damaged:
        return ValueError(f'{where}: {damaged}')
    # A ValueError is ours or mmengine's and is worded for users.
    if isinstance(error, ValueError):
        return ValueError(f'{where}: {error}')
    return ValueError(f'{where} cannot be built ({type(error).__name__}: {error})')


def _check_labels(where: str, infos: Sequence[Mapping], classes: int) -> None:
    for info in infos:
        label = info.get('gt_label')
        if isinstance(label, Integral) and (label < 0 or 0 < classes <= label):
            known = f'from 0 to {classes - 1}' if classes else 'of 0 or more'
            raise ValueError(
                f'{where}.dataset: the label of {info["img_id"]} is {label}, and labels are '
                f'{known}: test on a split that has labels, and count them from 0'
            )


def _check_metainfo(metainfo: Any) -> None:
    """Raise ValueError if the parts of a ConcatDataset describe themselves differently."""
    if isinstance(metainfo, Mapping):
        return
    first, *others = metainfo
    keys = sorted({key for other in others for key in other if other[key] != first.get(key)})
    raise ValueError(
        f'datasets: its parts have other {", ".join(keys) or "metainfo"}, and no metric can '
        f'compare with both: give all of them the same metainfo, or test them in runs of their own'
    )


def _check_ids(where: str, infos: Sequence[Mapping]) -> None:
    """Raise ValueError if two images have the same id.

    Metrics put the detections of both together, and a resample of the images would take them for
    independent. As in the seeds of the corruptions 7 and '7' are the same.
    """
    seen: dict[str, Mapping] = {}
    for info in infos:
        other = seen.setdefault(str(info['img_id']), info)
        if other is info:
            continue
        paths = [each.get('img_path') for each in (other, info)]
        if paths[0] and paths[0] == paths[1]:
            what = f'image {paths[0]} is in it twice'
            remedy = 'list it once, and leave out RepeatDataset and its like'
        else:
            named = f'{paths[0]} and {paths[1]}' if all(paths) else 'two images'
            what = f'{named} have the same image id {info["img_id"]!r}'
            remedy = (
                'number one of the sets anew, or test them in runs of their own, as '
                'MultiDatasetsEvaluator does'
            )
        raise ValueError(f'{where}.dataset: {what}: {remedy}')


def _is_ambiguous(infos: Sequence[Mapping]) -> bool:
    return len({str(info['img_id']) for info in infos}) < len(infos)


def _common_folder(infos: Sequence[Mapping]) -> str:
    """Return the folder that holds all images, '' if some are not in files."""
    paths = [info.get('img_path') for info in infos]
    if not all(paths):
        return ''
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def _image_folder(dataset: Any) -> str:
    """Return the folder of a dataset's images, as mmpretrain's datasets name it."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    return prefixes.get('img_path') or getattr(dataset, 'data_root', None) or ''


def _build_pipelines(
    configs: Mapping[str, Sequence[Mapping]], key: str, classification: bool
) -> tuple[list[tuple[Callable, Callable]], list[int]]:
    """Build each different pipeline once, in two parts: up to the corruption, and the rest.

    Returns:
        tuple[list[tuple[Callable, Callable]], list[int]]: The pipelines, and for each config the
        number of its own. Equal first parts are the same object, which is run once.
    """
    split = split_after_cropping if classification else split_after_loading
    pipelines: dict[str, tuple[Callable, Callable]] = {}
    loadings: dict[str, Callable] = {}
    views = []
    for pipeline in configs.values():
        text = _to_text(pipeline)
        if text not in pipelines:
            before, after = split(f'{key}.dataset.pipeline', pipeline)
            # MultiViewImages runs equal loading parts once: it compares them by identity.
            loading = loadings.setdefault(_to_text(before), Compose(copy.deepcopy(before)))
            pipelines[text] = loading, Compose(copy.deepcopy(after))
        views.append(list(pipelines).index(text))
    return list(pipelines.values()), views


def _check_clean(where: str, config: Mapping, pipeline: Sequence[Mapping]) -> None:
    """Raise ValueError if a dataset or its pipeline corrupts images by itself."""
    corruption = _corruption_of(config)
    if corruption != 'none' or 'ImageCorruption' in map(type_name, pipeline):
        kind = type_name(config)
        if kind in PUBLISHED:
            clean, option = PUBLISHED[kind]
            remedy = f'use {clean}; {option} then reads the corrupted images of {kind}'
        else:
            remedy = "leave out ImageCorruption, and set corruption='none'"
        raise ValueError(
            f'{where}.dataset corrupts its images already ({corruption}), and clean ones are '
            f'needed here: {remedy}'
        )


def _corruption_of(config: Mapping) -> str:
    """Return the corruption of a dataset's config, or of a dataset that it wraps."""
    inner = config.get('datasets') or config.get('dataset') or []
    found = [_corruption_of(one) for one in ([inner] if isinstance(inner, Mapping) else inner)]
    found.append(config.get('corruption', 'none'))
    return next((each for each in found if each != 'none'), 'none')


def _shared_collate(dataloaders: Mapping[str, Mapping], key: str) -> Callable:
    """Build the collate_fn of the dataloaders; raise ValueError if they have different ones."""
    # mmengine's Runner.build_dataloader has the same default.
    default = dict(type='pseudo_collate')
    found = {name: dict(one.get('collate_fn') or default) for name, one in dataloaders.items()}
    first, config = next(iter(found.items()))
    other = next((name for name in found if found[name] != config), None)
    if other is not None:
        raise ValueError(
            f'{other}: {key}.collate_fn is {found[other]}, and that of {first} {config}; images '
            f'are put into batches once for all: give both the same one'
        )
    kind = config.pop('type')
    return partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **config)


def _to_dict(value: Any) -> dict:
    return value.to_dict() if isinstance(value, ConfigDict) else dict(value)


def _to_text(value: Any) -> str:
    """Return a text that is equal for equal configs."""
    return json.dumps(value, sort_keys=True, default=str)
