# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Images under many conditions, read from ImageNet-C or CIFAR-10-C instead of computed."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import PurePath
from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from ...integration import SHAPING, type_name
from .image_files import UNREADABLE_ERRORS, failure_reason
from .multi_view import CLEAN, Condition, MultiViewImages


class PublishedImages(MultiViewImages):
    """Dataset of clean images, and of the same images in a published corrupted set.

    The same image has the same class folder and file name there. Where the clean images are in no
    folders the file name decides, and where there are no files the index. Published images have
    their final size, so steps that resize or crop are left out. All of them must be readable: an
    image missing from one condition alone would make the conditions incomparable.

    Args:
        dataset, indices, pipelines, folder: As for :class:`MultiViewImages`.
        published (Mapping): Config of the set, without corruption, severity and pipeline:
            ``dict(type='ImageNetC', data_root=...)``. If the clean set has a part of the classes
            or images, no more than that part is needed.

    Raises:
        ValueError: If images have no class, or the two sets have other classes.
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
        self._kind = _dataset_class(self._settings.pop('type'))
        self._check_classes(len(dataset.metainfo.get('classes') or ()))
        self._reading = [
            (loading, Compose([t for t in loading.transforms if type_name(t) not in SHAPING]))
            for loading, _ in pipelines
        ]
        # One condition is kept: of CIFAR-10-C it takes 30 MB in each worker, and conditions are
        # tested one after the other.
        self._opened: tuple[Condition | None, dict[str, dict]] = (None, {})

    def _check_classes(self, classes: int) -> None:
        published = len(self._settings.get('wnids') or self._kind.METAINFO['classes'])
        # wnids may be a str, a file of unknown length, which the dataset itself checks.
        if classes and classes != published and not isinstance(self._settings.get('wnids'), str):
            raise ValueError(
                f'the test set has {classes} classes and {self._kind.__name__} {published}: use a '
                f'config for its classes, or in Python name class folders in published.wnids'
            )

    def check(self, conditions: Iterable[Condition]) -> None:
        """Check that all conditions exist, and that the first image has the size models see.

        Args:
            conditions (Iterable[Condition]): Those that will be tested.

        Raises:
            FileNotFoundError: Naming what is missing.
            ValueError: If a condition exists twice, or the first one lacks images or has images
                of another size.
        """
        corrupted = [condition for condition in conditions if condition != CLEAN]
        for condition in corrupted:
            self._kind.find(self._settings.get('data_root', ''), *condition)
        for loading, _ in self.pipelines:
            try:
                clean, size = (
                    self.load(condition, self.info(0), loading)['img'].shape[:2]
                    for condition in (CLEAN, corrupted[0])
                )
            except RuntimeError as error:
                raise ValueError(str(error)) from error
            if clean != size:
                raise ValueError(
                    f'the images of {self._kind.__name__} are {size[1]} x {size[0]} pixels, and '
                    f'the config makes {clean[1]} x {clean[0]} of clean ones: use a config for '
                    f'that size, or compute the corruptions instead of reading them'
                )

    def load(self, condition: Condition, info: dict, loading: Callable) -> dict:
        """Load an image, from the published set unless the condition is ``CLEAN``.

        Raises:
            RuntimeError: If it cannot be read, or has another label there. This ends the run,
                unlike the errors of an image that is left out of all conditions.
        """
        source, reading = info, loading
        if condition != CLEAN:
            source = _counterpart(info, self._open(condition))
            reading = next(read for load, read in self._reading if load is loading)
        if source['gt_label'] != info['gt_label']:
            raise RuntimeError(
                f'{condition} of {self._kind.__name__}: the label of {source["img_id"]} is '
                f'{source["gt_label"]}, and that of the clean one {info["gt_label"]}: one of the '
                f'sets is sorted otherwise'
            )
        try:
            # CLEAN, since the published image is corrupted already.
            return super().load(CLEAN, source, reading)
        except UNREADABLE_ERRORS as error:
            name = source.get('img_path') or source['img_id']
            where = f'{condition} of {self._kind.__name__}' if condition != CLEAN else condition
            raise RuntimeError(
                f'{where}: {name} cannot be read ({failure_reason(error, source)}): repair it, '
                f'and the same command goes on'
            ) from error

    def _open(self, condition: Condition) -> dict[str, dict]:
        """Return the infos of a condition's images, by id and by file name."""
        if self._opened[0] != condition:
            try:
                dataset = self._kind(
                    corruption=condition.corruption, severity=condition.severity, **self._settings
                )
            except (OSError, ValueError) as error:
                # As OSError or ValueError it would mean one image that is left out; it is all.
                raise RuntimeError(' '.join(str(error).split())) from error
            infos = [dataset.get_data_info(i) for i in range(len(dataset))]
            by_id = {str(info['img_id']): info for info in infos}
            # By name for clean images in no folders; a name that occurs twice decides nothing.
            counts = Counter(map(_file_name, infos))
            by_id |= {_file_name(info): info for info in infos if counts[_file_name(info)] == 1}
            self._check_complete(condition, by_id)
            self._opened = condition, by_id
        return self._opened[1]

    def _check_complete(self, condition: Condition, by_id: Mapping[str, dict]) -> None:
        missing = [
            str(info['img_id']) for info in self._infos if _counterpart(info, by_id) is None
        ]
        if missing:
            raise RuntimeError(
                f'{condition} of {self._kind.__name__} lacks {len(missing)} of {len(self)} images '
                f'of the test set ({", ".join(missing[:3])}{", ..." if missing[3:] else ""}): '
                f'unpack it anew, or test with the set that it was made of'
            )


def restrict_to_labels(config: Mapping, labels: Collection[int]) -> dict:
    """Restrict the config of a published set to the classes of a test set.

    Args:
        config (Mapping): Config of any dataset; its own settings have priority. Datasets without
            ``settings_for`` are not restricted.
        labels (Collection[int]): Labels of the test set.

    Returns:
        dict: The config with the settings added.
    """
    kind = _dataset_class(config.get('type'))
    if not hasattr(kind, 'settings_for'):
        return dict(config)
    settings = {key: value for key, value in config.items() if key != 'type'}
    return {'type': config['type'], **kind.settings_for(labels, **settings)}


def _dataset_class(kind: str | type | None) -> type | None:
    if not isinstance(kind, str):
        return kind
    # None: the current scope, as when the dataset itself is built.
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)


def _counterpart(info: Mapping, by_id: Mapping[str, dict]) -> dict | None:
    """Return the info of the same image in a published set."""
    return by_id.get(str(info['img_id']))


def _file_name(info: Mapping) -> str:
    return PurePath(str(info['img_id'])).name
