# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The protocol of a run: all that its figures depend on, so that no others are mixed with them."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..distributions import installed, openmmlab_versions, pixel_versions
from ..errors import ProtocolMismatchError
from ..version import __version__
from .datasets import CLEAN
from .evaluation_settings import EvaluationSettings

FORMAT = 1
"""Version of the format of results.json; to be increased when a key changes its meaning."""
MEANINGS = {
    'config_sha256': (
        'the config has another model, data_preprocessor, test_cfg, test_dataloader or '
        'test_evaluator; paths in these count as well, as that of an exported folder does'
    ),
    'checkpoint_sha256': 'the file of the checkpoint has other bytes, under whatever name',
    'sha256': 'ids, sizes or annotations of the images are others',
}
"""What it means that a digest differs, by the last part of its key."""
PATHS = ('img_path', 'xml_path', 'seg_map_path', 'sample_idx')
"""Keys of a dataset's info that differ from one machine to another."""


def build_protocol(
    settings: EvaluationSettings,
    metric: str,
    batch_size: int,
    resamples: int,
    dataset: Mapping,
    shifted_sets: Mapping[str, Mapping],
    models: Mapping[str, Mapping],
) -> dict:
    """Build the protocol of a run, as results.json has it.

    Args:
        settings (EvaluationSettings): The settings.
        metric (str): Name of P among the metrics.
        batch_size (int): Images in a batch. A model may give other last bits for another size.
        resamples (int): Resamples of the bootstrap; 0 for a metric that cannot be resampled.
        dataset (Mapping): Description of the test set.
        shifted_sets (Mapping[str, Mapping]): Descriptions of the shifted test sets, by name.
        models (Mapping[str, Mapping]): Digests of config and checkpoint of each model.

    Returns:
        dict: Plain data.
    """
    corrupted = [condition for condition in settings.conditions if condition != CLEAN]
    protocol = {
        'format': FORMAT,
        'metric': metric,
        **({} if settings.scale is None else {'scale': settings.scale}),
        'corruptions': list(dict.fromkeys(c.corruption for c in corrupted)),
        'severities': list(dict.fromkeys(c.severity for c in corrupted)),
        'seed': settings.seed,
        'mode': 'published' if settings.published else settings.mode,
        **({'published': _absolute(settings.published)} if settings.published else {}),
        'subset': settings.subset,
        'dataset': dataset,
        'batch_size': batch_size,
        'device': _device_name(settings.device),
        'bootstrap': {
            'resamples': resamples,
            'seed': settings.seed,
            'interval': '1.96 standard errors',
        },
        'models': models,
        'versions': versions(),
    }
    if shifted_sets:
        protocol['shifts'] = dict(shifted_sets)
    return protocol


def _absolute(published: Mapping) -> dict:
    """Return the config of a published set with an absolute path: other files, another run."""
    root = Path(published.get('data_root', '')).expanduser().resolve()
    return {**published, 'data_root': str(root)}


def _device_name(device: str) -> str:
    """Return the name of a GPU, as figures may differ from one model of GPU to another."""
    return torch.cuda.get_device_name(device) if device.startswith('cuda') else device


def digest(value: Any) -> str:
    """Return the sha256 of plain data; the order of keys does not matter."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_images(infos: Sequence[Mapping]) -> str:
    """Return the sha256 of infos of images: ids, sizes and annotations, without paths of files."""
    total = hashlib.sha256()
    for info in infos:
        portable = {
            # CIFAR's datasets have the pixels in their infos; JSON has no arrays.
            key: hashlib.sha256(value).hexdigest() if isinstance(value, np.ndarray) else value
            for key, value in info.items()
            if key not in PATHS
        }
        total.update(digest(portable).encode())
    return total.hexdigest()


def digest_of_file(path: str) -> str:
    """Return the sha256 of a file."""
    total = hashlib.sha256()
    with open(path, 'rb') as file:
        # In blocks of 1 MiB: a checkpoint may be larger than the memory that is free.
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of all packages that figures depend on."""
    return {
        # Among pixel_versions as well; here it comes first, as in results.json from the start.
        'mmdet_adasap': __version__,
        'python': platform.python_version(),
        'torch': str(torch.__version__),
        **pixel_versions(),
        # It computes COCO's P, and is needed for nothing else.
        **installed(['pycocotools']),
        **openmmlab_versions(),
    }


def check_same_protocol(where: str, there: Mapping, here: Mapping) -> None:
    """Raise an error if a folder has results of other settings.

    Args:
        where (str): The folder, for the message.
        there (Mapping): The protocol of the results in it.
        here (Mapping): The protocol of this run.

    Raises:
        ProtocolMismatchError: Naming the first setting that differs.
    """
    old, new = dict(_flat(there)), dict(_flat(here))
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            raise ProtocolMismatchError(
                f'{where} holds results of another protocol: {key} is {_shown(old, key)} there '
                f'and {_shown(new, key)} here{_meaning(key)}; use the same '
                f'settings to go on with it, or give another folder with --out'
            )


def _shown(values: Mapping, key: str) -> str:
    return json.dumps(values[key]) if key in values else 'missing'


def _meaning(key: str) -> str:
    """Return in words what it means that a digest differs, which itself says nothing."""
    words = MEANINGS.get(key.rpartition('.')[2])
    return f' ({words})' if words else ''


def _flat(value: Mapping, prefix: str = '') -> list[tuple[str, Any]]:
    """Return keys and values of nested mappings, with keys as ``versions.torch``."""
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            pairs += _flat(inner, f'{prefix}{key}.')
        else:
            # JSON turns tuples into lists: both sides are compared as they are after reading.
            pairs.append((prefix + key, json.loads(json.dumps(inner))))
    return pairs
