# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from numbers import Integral
from pathlib import PurePath

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS

from .corruptions import check_condition, corrupt, corruption_seed


# In mmengine's root registry, so that pipelines of mmdet and of mmpretrain find it by bare name.
@TRANSFORMS.register_module()
class ImageCorruption:
    """Corrupt the image of a pipeline, the same way every time for the same image.

    Belongs right behind ``LoadImageFromFile``, before anything that changes the pixels.

    Required Keys:

    - img
    - img_id or img_path

    Modified Keys:

    - img

    Args:
        corruption (str): One of ``CORRUPTIONS``, or 'none', which leaves images as they are
            whatever the severity.
        severity (int): 1 (light) to 5 (heavy). Defaults to 1.
        seed (int): Seed of the benchmark. Pixels depend on this, the image's id (``img_id``, else
            the file name without folder and ending), the corruption and the severity, and on
            nothing else. Defaults to 0.
        channel_order (str): How ``img`` is stored: 'bgr', as ``LoadImageFromFile`` does, or
            'rgb'. Defaults to 'bgr'.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an argument has a value other than those above.
    """

    def __init__(
        self,
        corruption: str,
        severity: int = 1,
        seed: int = 0,
        channel_order: str = 'bgr',
    ) -> None:
        if corruption != 'none':
            check_condition(corruption, severity)
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f'seed={seed!r} must be an int')
        if channel_order not in ('bgr', 'rgb'):
            raise ValueError(f"channel_order={channel_order!r} is unknown: use 'bgr' or 'rgb'")
        self.corruption = corruption
        self.severity = severity
        self.seed = seed
        self.channel_order = channel_order

    def __call__(self, results: dict) -> dict:
        """Corrupt ``results['img']``, (H, W, 3), uint8.

        Raises:
            KeyError: If the image has neither id nor path.
            TypeError: If the image is no uint8 array.
            ValueError: If the image is grey or smaller than 32 x 32.
        """
        if self.corruption == 'none':
            return results
        image_id = self._image_id(results)
        seed = corruption_seed(self.seed, image_id, self.corruption, self.severity)
        try:
            image = corrupt(self._turned(results['img']), self.corruption, self.severity, seed)
        except (TypeError, ValueError) as error:
            where = results.get('img_path', image_id)
            raise type(error)(f'ImageCorruption on {where}: {error}') from error
        results['img'] = self._turned(image)
        return results

    def _turned(self, image: np.ndarray) -> np.ndarray:
        """From BGR to RGB or back: jpeg_compression and others are defined on RGB."""
        colour = isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3
        if self.channel_order == 'rgb' or not colour or image.dtype != np.uint8:
            return image  # what is no colour image is refused by corrupt
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # numpy's reversed copy takes milliseconds

    @staticmethod
    def _image_id(results: dict) -> str | int:
        if results.get('img_id') is not None:
            return results['img_id']
        if results.get('img_path'):
            return PurePath(results['img_path']).stem
        raise KeyError(
            'ImageCorruption needs img_id or img_path in the results to know which image it '
            'corrupts: put it right behind LoadImageFromFile'
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(corruption={self.corruption!r}, severity={self.severity}, '
            f'seed={self.seed}, channel_order={self.channel_order!r})'
        )
