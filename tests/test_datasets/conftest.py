# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

import numpy as np
import pytest

from builtin_sets.tiny_voc import build_tiny_voc
from builtin_sets.tiny_voc_scenes import load_photo

SETTINGS = {'seed': 3, 'train': 4, 'val': 3, 'test': 2, 'size': 96}


@pytest.fixture(scope='session')
def settings() -> dict[str, int]:
    return dict(SETTINGS)


@pytest.fixture(scope='session')
def tiny_voc(tmp_path_factory) -> Path:
    """Folder of a small set; not to be written to."""
    out = tmp_path_factory.mktemp('data') / 'tiny_voc'
    build_tiny_voc(out, **SETTINGS)
    return out


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
    """A real photograph, uint8, (427, 640, 3), RGB."""
    return np.array(load_photo('china.jpg'))
