# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

sys.path.insert(0, str(Path(__file__).parent))
# Two threads on a busy machine are slower than one, and the results then depend on both.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_default_scope():
    """A Runner of one test sets mmengine's default scope for all that come after it."""
    yield
    DefaultScope._instance_dict.clear()
