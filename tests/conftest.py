# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
# Two threads on a busy machine are slower than one, and the results then depend on both.
torch.set_num_threads(1)
