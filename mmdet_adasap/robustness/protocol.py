# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the figures of a run depend on, so that figures of different runs are not mixed up."""

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import cv2
import numpy as np
import torch

from ..errors import ProtocolMismatchError
from ..version import __version__

FORMAT = 1
"""Of results.json."""
PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')
PATHS = ('img_path', 'xml_path', 'seg_map_path', 'sample_idx')
"""What a dataset knows of an image that differs from one machine to another."""


def choose_subset(ids: Sequence[str | int], count: int | None) -> list[int]:
    """The same images for the same set, whatever its order: those whose ids hash lowest.

    A larger subset holds the smaller ones.

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
    hashed = sorted(range(len(ids)), key=lambda i: (digest(str(ids[i])), i))
    return sorted(hashed[:count])


def digest(value: Any) -> str:
    """sha256 of plain data; the order of keys does not matter."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_images(infos: Sequence[Mapping]) -> str:
    """sha256 of what is known of images: ids, sizes and annotations, without places of files."""
    total = hashlib.sha256()
    for info in infos:
        known = {
            key: hashlib.sha256(value).hexdigest() if isinstance(value, np.ndarray) else value
            for key, value in info.items()
            if key not in PATHS
        }
        total.update(digest(known).encode())
    return total.hexdigest()


def digest_of_file(path: str) -> str:
    """sha256 of a file."""
    total = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def versions() -> dict[str, str]:
    """What computes, by its version."""
    found = {
        'mmdet_adasap': __version__,
        'python': platform.python_version(),
        'torch': str(torch.__version__),
        'numpy': np.__version__,
        'opencv': cv2.__version__,
        'pillow': metadata.version('pillow'),
    }
    with contextlib.suppress(metadata.PackageNotFoundError):
        found['pycocotools'] = metadata.version('pycocotools')  # it computes COCO's P
    for name in PACKAGES:
        for package in (f'onedl-{name}', f'onedl-{name}ection', name):
            try:
                found[name] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def check_same_protocol(where: str, there: Mapping, here: Mapping) -> None:
    """Refuse to go on with results of other settings.

    Args:
        where (str): The folder, for the message.
        there (Mapping): The protocol of the results in it.
        here (Mapping): That of this run.

    Raises:
        ProtocolMismatchError: Naming the first setting that differs.
    """
    old, new = dict(_flat(there)), dict(_flat(here))
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            raise ProtocolMismatchError(
                f'{where} holds results of another protocol: {key} is {_shown(old, key)} there '
                f'and {_shown(new, key)} here; use the same settings to go on with it, or give '
                f'another folder with --out'
            )


def _shown(values: Mapping, key: str) -> str:
    return json.dumps(values[key]) if key in values else 'missing'


def _flat(value: Mapping, prefix: str = '') -> list[tuple[str, Any]]:
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            pairs += _flat(inner, f'{prefix}{key}.')
        else:
            # As it is after it was written and read.
            pairs.append((prefix + key, json.loads(json.dumps(inner))))
    return pairs
