# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math
from functools import lru_cache

import cv2
import numpy as np

from ...env import package_folder

#: In the order in which the benchmark numbers them.
FROST_PHOTOS = (
    *('frost1.png', 'frost2.png', 'frost3.png'),
    *('frost4.jpg', 'frost5.jpg', 'frost6.jpg'),
)
_REMEDY = (
    'install one that has them with `pip install --no-deps imagecorruptions-imaug`, or leave out '
    'frost'
)


def frost_texture(number: int, height: int, width: int) -> np.ndarray:
    """Give one of the photographs of frost, a tenth larger than an image needs at least.

    Args:
        number (int): Which of ``FROST_PHOTOS``, from 0.
        height (int): Height of the image.
        width (int): Width of the image.

    Returns:
        ndarray: uint8, (H', W', 3), RGB, with H' > height and W' > width. Not to be written to.

    Raises:
        FileNotFoundError: If no installed package has the photograph.
    """
    photo = _photo(number)
    factor = max(height / photo.shape[0], width / photo.shape[1], 1) * 1.1
    return _enlarged(number, *(math.ceil(side * factor) for side in photo.shape[:2]))


def check_frost_photos() -> None:
    """Refuse to begin what would come to frost later, and fail.

    Raises:
        FileNotFoundError: If no installed package has the photographs.
    """
    for number in range(len(FROST_PHOTOS)):
        _photo(number)


# Most images of a set have one of a few sizes, and workers do not share memory.
@lru_cache(maxsize=16)
def _enlarged(number: int, height: int, width: int) -> np.ndarray:
    return cv2.resize(_photo(number), (width, height), interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=len(FROST_PHOTOS))
def _photo(number: int) -> np.ndarray:
    # Found, not imported: the import alone needs scikit-image, scipy and numba.
    folder = package_folder('imagecorruptions')
    if folder is None:
        raise FileNotFoundError(
            f'frost needs photographs that the package imagecorruptions carries: {_REMEDY}'
        )
    path = folder / 'frost' / FROST_PHOTOS[number]
    photo = cv2.imread(str(path)) if path.is_file() else None
    if photo is None:
        raise FileNotFoundError(
            f'frost needs {str(path)!r}, which is no readable image: {_REMEDY}'
        )
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)
