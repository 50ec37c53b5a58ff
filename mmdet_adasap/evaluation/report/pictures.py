# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The example images as the models saw them, small enough to be part of a page."""

import base64
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ...datasets.image_files import read_image
from ...datasets.transforms import ImageCorruption
from ..results_folder import example_file
from .reading import Example, Guess, Results, Unreadable

SIDE = 480
"""Pixels of the longer side, at most."""
QUALITY = 85


class Picture(NamedTuple):
    """An image for a page.

    Attributes:
        name (str): A name for it within the page.
        width (int): Pixels of the image, which boxes refer to.
        height (int): The same.
        jpeg (bytes): The image, perhaps smaller.
    """

    name: str
    width: int
    height: int
    jpeg: bytes

    @property
    def uri(self) -> str:
        """As an address that needs no network."""
        return f'data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}'


class Pictures:
    """Loads and corrupts the images of examples, each once.

    Args:
        results (Results): Which images, and the seed of the corruptions.

    Attributes:
        made (dict[str, Picture]): What was asked for, by name.
        lost (dict[int, Unreadable]): Examples that cannot be read, by number.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.made: dict[str, Picture] = {}
        self.lost: dict[int, Unreadable] = {}
        self._load = cache(self._loaded)

    def get(self, example: Example, corruption: str, severity: int) -> Picture | None:
        """An example under a condition ('none', 0 for clean); None if it cannot be read."""
        name = f'example-{example.number}-{corruption}-{severity}'
        if name not in self.made:
            try:
                self.made[name] = self._made(name, example, corruption, severity)
            except (OSError, ValueError, TypeError, cv2.error) as error:
                reason = ' '.join(str(error).split()) or type(error).__name__
                self.lost[example.number] = Unreadable(_called(example), reason)
                return None
        return self.made[name]

    def _made(self, name: str, example: Example, corruption: str, severity: int) -> Picture:
        if isinstance(example.truth, Guess):
            return self._kept(name, example, corruption, severity)
        image = self._load(example)
        height, width = image.shape[:2]
        step = ImageCorruption(
            corruption, severity, self.results.seed, mode=self.results.protocol['mode']
        )
        info = {'img': image, 'img_id': example.img_id, 'img_path': example.img_path}
        return Picture(name, width, height, _encoded(step(info)['img']))

    def _kept(self, name: str, example: Example, corruption: str, severity: int) -> Picture:
        """What classifiers saw, of which the run kept a copy."""
        folder = self.results.file.parent
        file = example_file(folder, corruption, severity, example.number)
        if not file.is_file():
            raise FileNotFoundError(f'{file.relative_to(folder)} is not there')
        image = read_image(file)
        if image is None:
            raise ValueError(f'{file.relative_to(folder)} is no image')
        height, width = image.shape[:2]
        return Picture(name, width, height, file.read_bytes())

    def _loaded(self, example: Example) -> np.ndarray:
        """The image as LoadImageFromFile gives it: (H, W, 3), BGR, uint8."""
        path = Path(example.img_path or '')
        # Nothing else ends by itself: a pipe or a device may be named as well.
        if example.img_path is None or '\0' in example.img_path or not path.is_file():
            raise FileNotFoundError('it is not there')
        image = read_image(path)
        if image is None:
            raise ValueError('it is no image')
        return image


def _encoded(image: np.ndarray) -> bytes:
    share = SIDE / max(image.shape[:2])
    if share < 1:
        size = [max(round(side * share), 1) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def _called(example: Example) -> str:
    return example.img_path or str(example.img_id)
