# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The corruptions as a transform of mmengine's pipelines, for images in colour and grey."""

import os
from numbers import Integral
from pathlib import PurePath

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS

from ...registry import checks_arguments
from ..corruptions import check_condition, check_mode, corrupt, corruption_seed
from .image_files import relative_path


# In mmengine's root registry, so that pipelines of mmdet and of mmpretrain find it by bare name.
@TRANSFORMS.register_module()
class ImageCorruption:
    """Corrupt the image of a pipeline, the same way every time for the same image.

    For detection it belongs right behind ``LoadImageFromFile``, before anything that changes the
    pixels. For classification:

    - As ImageNet-C was made, images are corrupted at the size that the model sees: put it behind
      ``ResizeEdge`` (scale=256, edge='short') and ``CenterCrop`` (crop_size=224), before
      ``PackInputs``. ImageNet-C was resized by Pillow and stored as JPEG, so its pixels differ.
      Right behind ``LoadImageFromFile`` the whole photograph is corrupted and the resizing takes
      part of it away again: another, milder benchmark.
    - mmpretrain's CIFAR10 loads nothing and is RGB: put it first, with ``channel_order='rgb'``.
      The corruptions have the strengths of ImageNet-C. CIFAR-10-C has weaker ones of its own,
      which are not here; read its files with ``CIFAR10C`` to compare with published results.

    A grey image, (H, W) or (H, W, 1) as of ``color_type='grayscale'``, is corrupted as three equal
    channels, and what comes out is made grey again with the usual weights of red, green and blue
    (ITU-R BT.601). So noise is a third weaker than in each channel, as in a photograph that is
    corrupted in colour and read as grey.

    Required Keys:

    - img
    - img_id, img_path or sample_idx

    Modified Keys:

    - img

    Args:
        corruption (str): One of ``CORRUPTIONS``, or 'none', which leaves images as they are
            whatever the severity.
        severity (int): 1 (light) to 5 (heavy). Defaults to 1.
        seed (int): Seed of the benchmark. Pixels depend on this, the image's id, the corruption
            and the severity, and on nothing else. The id is ``img_id``, else the path (see
            ``data_root``), else ``sample_idx``, the place in a dataset that has no files; that
            counts in what is left where the dataset was given ``indices``. Defaults to 0.
        channel_order (str): How ``img`` is stored: 'bgr', as ``LoadImageFromFile`` does, or
            'rgb'. Defaults to 'bgr'.
        mode (str): 'fast', or 'exact' for the draws of the published code, see :func:`corrupt`.
            Defaults to 'fast'.
        data_root (str | None): Folder with the class folders. The id is then the path in it,
            such as n01440764/ILSVRC2012_val_00000293.JPEG. Defaults to None, the file name
            without folder and ending, where files of different classes have different names.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an argument has a value other than those above.
    """

    @checks_arguments
    def __init__(
        self,
        corruption: str,
        severity: int = 1,
        seed: int = 0,
        channel_order: str = 'bgr',
        mode: str = 'fast',
        data_root: str | None = None,
    ) -> None:
        if corruption != 'none':
            check_condition(corruption, severity)
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f'seed={seed!r} must be an int')
        if channel_order not in ('bgr', 'rgb'):
            raise ValueError(f"channel_order={channel_order!r} is unknown: use 'bgr' or 'rgb'")
        check_mode(mode)
        if data_root is not None and not isinstance(data_root, str | os.PathLike):
            raise TypeError(f'data_root={data_root!r} must be a str, or None')
        self.corruption = corruption
        self.severity = severity
        self.seed = seed
        self.channel_order = channel_order
        self.mode = mode
        self.data_root = data_root

    def __call__(self, results: dict) -> dict:
        """Corrupt ``results['img']``, uint8, or float with the same whole levels.

        It is (H, W, 3), or grey: (H, W) or (H, W, 1).

        Raises:
            KeyError: If nothing says which image it is.
            TypeError: If the image is an array of anything else.
            ValueError: If it has other channels, is smaller than 32 x 32 or not in data_root.
        """
        if self.corruption == 'none':
            return results
        image_id = self._image_id(results)
        if 'img' not in results:
            raise KeyError('ImageCorruption finds no img: put it behind the step that loads one')
        condition = self.corruption, self.severity
        dtype = getattr(results['img'], 'dtype', None)
        seed = corruption_seed(self.seed, image_id, *condition, self.mode)
        try:
            image = as_uint8(results['img'])
            rgb = as_rgb(image, self.channel_order)
            corrupted = corrupt(rgb, *condition, seed, self.mode)
        except (TypeError, ValueError) as error:
            where = results.get('img_path', image_id)
            raise type(error)(f'ImageCorruption on {where}: {error}') from error
        stored = _from_rgb(corrupted, image, self.channel_order)
        results['img'] = stored.astype(dtype, copy=False)
        return results

    def _image_id(self, results: dict) -> str | int:
        if results.get('img_id') is not None:
            return results['img_id']
        if results.get('img_path'):
            return self._path_id(results['img_path'])
        if results.get('sample_idx') is not None:
            return results['sample_idx']
        raise KeyError(
            'ImageCorruption needs img_id, img_path or sample_idx in the results to know which '
            'image it corrupts: put it into the pipeline of a dataset, behind LoadImageFromFile '
            'if there is one'
        )

    def _path_id(self, path: str) -> str:
        if self.data_root is None:
            return PurePath(path).stem
        relative = relative_path(path, self.data_root)
        if relative is None:
            raise ValueError(
                f'ImageCorruption: {path} is not in data_root={self.data_root!r}: set it to the '
                'folder that holds the class folders'
            )
        return relative

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(corruption={self.corruption!r}, severity={self.severity}, '
            f'seed={self.seed}, channel_order={self.channel_order!r}, mode={self.mode!r}, '
            f'data_root={self.data_root!r})'
        )


def as_rgb(image: np.ndarray, channel_order: str) -> np.ndarray:
    """Convert an image to RGB: jpeg_compression and others are defined on it.

    Args:
        image (ndarray): uint8, (H, W, 3), or grey, (H, W) or (H, W, 1). Anything else is returned
            as it is: ``check_image`` then names what is wrong with it.
        channel_order (str): 'bgr' or 'rgb', of an image in colour.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not image.size:
        return image
    if _is_grey(image):
        return cv2.cvtColor(image.reshape(image.shape[:2]), cv2.COLOR_GRAY2RGB)
    if channel_order == 'rgb' or image.ndim != 3 or image.shape[2] != 3:
        return image
    # numpy's image[..., ::-1] would take milliseconds: it copies byte by byte.
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _from_rgb(rgb: np.ndarray, like: np.ndarray, channel_order: str) -> np.ndarray:
    """Convert RGB to what ``as_rgb`` got: the channels and the shape of ``like``."""
    if _is_grey(like):
        # Of three equal channels these weights give the same level again.
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).reshape(like.shape)
    return rgb if channel_order == 'rgb' else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def _is_grey(image: np.ndarray) -> bool:
    return image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Convert a float image that holds whole grey levels, as of ``to_float32=True``, to uint8.

    Anything else is returned as it is: ``check_image`` then names what is wrong with it.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind != 'f':
        return image
    if not image.size or not 0 <= image.min() <= image.max() < 256:
        return image
    converted = image.astype(np.uint8)
    return converted if np.array_equal(converted, image) else image
