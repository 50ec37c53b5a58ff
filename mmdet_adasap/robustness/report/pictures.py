# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The example images, to be part of a page."""

import base64
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..datasets.transforms import ImageCorruption, read_image
from ..store import example_file
from .cells import CellFiles
from .reading import Example, Guess, Model, Results, Unreadable

SIDE = 480
"""Pixels of the longer side, at most, of what a detector was shown."""
QUALITY = 85


class Picture(NamedTuple):
    """An image for a page.

    Attributes:
        name (str): A name for it within the page.
        width (int): Pixels of the image, which boxes refer to.
        height (int): The same.
        jpeg (bytes): The image; a large one is smaller here.
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
    """The images of examples: as classifiers saw them, or the files, corrupted as for detectors.

    Args:
        results (Results): Which images, and the seed of the corruptions.
        files (CellFiles): Knows where the run of each model is.

    Attributes:
        made (dict[tuple, Picture]): What was asked for.
        lost (dict[int, Unreadable]): Examples that cannot be read, by number.
    """

    def __init__(self, results: Results, files: CellFiles) -> None:
        self.results, self.files = results, files
        self.made: dict[tuple, Picture] = {}
        self.lost: dict[int, Unreadable] = {}
        self._load = cache(self._loaded)

    def get(
        self, model: Model, example: Example, corruption: str, severity: int
    ) -> Picture | None:
        """An example under a condition ('none', 0 for clean); None if it cannot be read."""
        key = (example.number, corruption, severity)
        if isinstance(example.truth, Guess):
            folder = self.files.places[model.name].folder.parent
            key = (example_file(folder, corruption, severity, example.number, model.view),)
        if key not in self.made:
            try:
                self.made[key] = (
                    _kept(*key)
                    if isinstance(example.truth, Guess)
                    else self._made(example, corruption, severity)
                )
            except (OSError, ValueError, TypeError, cv2.error) as error:
                reason = ' '.join(str(error).split()) or type(error).__name__
                self.lost[example.number] = Unreadable(_called(example), reason)
                return None
        return self.made[key]

    def _made(self, example: Example, corruption: str, severity: int) -> Picture:
        image = self._load(example)
        height, width = image.shape[:2]
        step = ImageCorruption(
            corruption, severity, self.results.seed, mode=self.results.protocol['mode']
        )
        info = {'img': image, 'img_id': example.img_id, 'img_path': example.img_path}
        name = f'example-{example.number}-{corruption}-{severity}'
        return Picture(name, width, height, _encoded(step(info)['img']))

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


def _kept(file: Path) -> Picture:
    """What classifiers saw, of which the run kept a copy."""
    if not file.is_file():
        raise FileNotFoundError(f'examples/{file.name} is not there')
    image = read_image(file)
    if image is None:
        raise ValueError(f'examples/{file.name} is no image')
    data = file.read_bytes()
    height, width = image.shape[:2]
    return Picture(f'example-{sha256(data).hexdigest()[:16]}', width, height, data)


def _encoded(image: np.ndarray) -> bytes:
    share = SIDE / max(image.shape[:2])
    if share < 1:
        size = [max(round(side * share), 1) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def _called(example: Example) -> str:
    return example.img_path or str(example.img_id)
