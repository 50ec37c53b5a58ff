# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

import cv2
import numpy as np


def read_image(path: str | Path) -> np.ndarray | None:
    """Read an image as ``LoadImageFromFile`` does by default.

    ``cv2.imread`` would take a file that was cut off and make the rest of it grey.

    Args:
        path (str | Path): The file.

    Returns:
        ndarray | None: uint8, (H, W, 3), BGR; None if the file is no whole image.

    Raises:
        OSError: If it cannot be read at all.
    """
    data = np.fromfile(path, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
