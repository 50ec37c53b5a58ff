# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Images under many conditions, read from ImageNet-C or CIFAR-10-C instead of corrupted here."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import PurePath
from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from ...integration.configs import SHAPING, type_name
from .multi_view import CLEAN, NO_IMAGE, Condition, MultiViewImages, reason


class PublishedImages(MultiViewImages):
    """Gives clean images of one dataset, and their corrupted ones of a published set.

    An image there is the one with the same class folder and file name, or the same file name
    where the clean ones are in no folders, or the same number where there are no files. They have
    their size already, so that steps that resize or crop are left out. Each has to be there and
    whole: left out of one condition alone it would make the conditions incomparable.

    Args:
        dataset, indices, pipelines, folder: As for :class:`MultiViewImages`.
        published (Mapping): The set as a config says it, without corruption, severity and
            pipeline: ``dict(type='ImageNetC', data_root=...)``. Of a clean set with a part of the
            classes, or of their images, no more than that part has to be there.
    """

    def __init__(
        self,
        dataset: Any,
        indices: Sequence[int],
        pipelines: Sequence[tuple[Callable, Callable]],
        published: Mapping,
        folder: str = '',
    ) -> None:
        super().__init__(dataset, indices, pipelines, folder=folder)
        self._infos = [self.info(position) for position in range(len(self))]
        if not all(isinstance(info.get('gt_label'), Integral) for info in self._infos):
            raise ValueError(
                f'{published["type"]} has images with one class each, and those of the test set '
                f'have not: read published images for classifiers alone'
            )
        self._settings = restrict_to_labels(published, {info['gt_label'] for info in self._infos})
        self._kind = _class(self._settings.pop('type'))
        self._check_classes(len(dataset.metainfo.get('classes') or ()))
        self._reading = [
            (loading, Compose([t for t in loading.transforms if type_name(t) not in SHAPING]))
            for loading, _ in pipelines
        ]
        self._opened: tuple[Condition | None, dict[str, dict]] = (None, {})

    def _check_classes(self, classes: int) -> None:
        there = len(self._settings.get('wnids') or self._kind.METAINFO['classes'])
        if classes and classes != there and not isinstance(self._settings.get('wnids'), str):
            raise ValueError(
                f'the test set has {classes} classes and {self._kind.__name__} {there}: use a '
                f'config for its classes, or in Python name class folders in published.wnids'
            )

    def check(self, conditions: Iterable[Condition]) -> None:
        """Look whether conditions are there, and the first image of the size that models see.

        Raises:
            FileNotFoundError: Naming what is missing.
            ValueError: If a condition is there twice, the first one lacks images or its first
                image, or the size is another one.
        """
        corrupted = [condition for condition in conditions if condition != CLEAN]
        for condition in corrupted:
            self._kind.find(self._settings.get('data_root', ''), *condition)
        for loading, _ in self.pipelines:
            try:
                clean, there = (
                    self.under(condition, self.info(0), loading)['img'].shape[:2]
                    for condition in (CLEAN, corrupted[0])
                )
            except RuntimeError as error:
                raise ValueError(str(error)) from error
            if clean != there:
                raise ValueError(
                    f'the images of {self._kind.__name__} are {there[1]} x {there[0]} pixels, and '
                    f'the config makes {clean[1]} x {clean[0]} of clean ones: use a config for '
                    f'that size, or compute the corruptions instead of reading them'
                )

    def under(self, condition: Condition, info: dict, loading: Callable) -> dict:
        """The image, which is read from the published set unless it is to be clean.

        Raises:
            RuntimeError: If it cannot be read, or has another label there.
        """
        found, reading = info, loading
        if condition != CLEAN:
            found = _same(info, self._set(condition))
            reading = next(read for load, read in self._reading if load is loading)
        if found['gt_label'] != info['gt_label']:
            raise RuntimeError(
                f'{condition} of {self._kind.__name__}: the label of {found["img_id"]} is '
                f'{found["gt_label"]}, and that of the clean one {info["gt_label"]}: one of the '
                f'sets is sorted otherwise'
            )
        try:
            return super().under(CLEAN, found, reading)
        except NO_IMAGE as error:
            name = found.get('img_path') or found['img_id']
            where = f'{condition} of {self._kind.__name__}' if condition != CLEAN else condition
            raise RuntimeError(
                f'{where}: {name} cannot be read ({reason(error, found)}): repair it, and the '
                f'same command goes on'
            ) from error

    def _set(self, condition: Condition) -> dict[str, dict]:
        """What is known of the images of a condition, by id and by name; one is kept open."""
        if self._opened[0] != condition:
            try:
                dataset = self._kind(
                    corruption=condition.corruption, severity=condition.severity, **self._settings
                )
            except (OSError, ValueError) as error:
                # Not an image that cannot be read, to be left out: all of them.
                raise RuntimeError(' '.join(str(error).split())) from error
            infos = [dataset.get_data_info(i) for i in range(len(dataset))]
            there = {str(info['img_id']): info for info in infos}
            # For clean images in no folders. A name that two have says nothing.
            times = Counter(map(_name, infos))
            there |= {_name(info): info for info in infos if times[_name(info)] == 1}
            self._refuse_missing(condition, there)
            self._opened = condition, there
        return self._opened[1]

    def _refuse_missing(self, condition: Condition, there: Mapping[str, dict]) -> None:
        missing = [str(info['img_id']) for info in self._infos if _same(info, there) is None]
        if missing:
            raise RuntimeError(
                f'{condition} of {self._kind.__name__} lacks {len(missing)} of {len(self)} images '
                f'of the test set ({", ".join(missing[:3])}{", ..." if missing[3:] else ""}): '
                f'unpack it anew, or test with the set that it was made of'
            )


def restrict_to_labels(config: Mapping, labels: Collection[int]) -> dict:
    """The config of a published set that holds no more than the classes of a test set.

    Args:
        config (Mapping): As it was given; what it says stays. Other datasets are left alone.
        labels (Collection[int]): Labels of the test set.
    """
    kind = _class(config.get('type'))
    if not hasattr(kind, 'settings_for'):
        return dict(config)
    settings = {key: value for key, value in config.items() if key != 'type'}
    return {'type': config['type'], **kind.settings_for(labels, **settings)}


def _class(kind: str | type | None) -> type | None:
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)


def _same(info: Mapping, there: Mapping[str, dict]) -> dict | None:
    """What a published set has for an image."""
    return there.get(str(info['img_id']))


def _name(info: Mapping) -> str:
    return PurePath(str(info['img_id'])).name
