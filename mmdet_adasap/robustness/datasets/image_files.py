# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Files of images: how they are read, what they are called, and why one cannot be used."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath

import cv2
import numpy as np

UNREADABLE_ERRORS = (OSError, ValueError, AssertionError, AttributeError, cv2.error)
"""What may be raised for a file that is no image: AssertionError by mmcv, AttributeError by later
steps that got None. A TypeError comes from a wrong config, so it is not among them."""


def read_image(path: str | Path) -> np.ndarray | None:
    """Read an image as ``LoadImageFromFile`` does by default.

    ``cv2.imread`` is not used: it reads a truncated file and makes the missing part grey.

    Args:
        path (str | Path): The file.

    Returns:
        ndarray | None: uint8, (H, W, 3), BGR; None if the file is no complete image.

    Raises:
        OSError: If it cannot be read at all.
    """
    data = np.fromfile(path, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None


def relative_path(path: str, folder: str) -> str | None:
    """Return a path relative to a folder, with slashes; None if it is not in there."""
    relative = PurePath(os.path.relpath(os.path.expanduser(path), os.path.expanduser(folder)))
    return None if relative.parts[:1] == (os.pardir,) else relative.as_posix()


def image_name(info: Mapping) -> str:
    """Return what an image is called in messages: its path, or its id where it has none."""
    return str(info.get('img_path') or info.get('img_id'))


def failure_reason(error: Exception, info: Mapping) -> str:
    """Return in one line why an image could not be loaded, without its name."""
    text = ' '.join(str(error).split()) or type(error).__name__
    path = info.get('img_path')
    if isinstance(error, AssertionError | AttributeError | cv2.error):
        text = f'it cannot be decoded ({text})'
    if path and os.path.isfile(path) and not os.path.getsize(path):
        text = 'the file is empty'
    # Pillow writes where in memory the file was, which is another place in each run.
    text = re.sub(r'<_io\.BytesIO object at 0x[0-9a-f]+>', 'it', text)
    if isinstance(error, FileNotFoundError) and path:
        text = f'there is no such file{other_endings(path)}'
    # The name of the file stands beside it.
    return text.removeprefix(f'ImageCorruption on {image_name(info)}: ')


def other_endings(path: str | os.PathLike) -> str:
    """Return a remark on files beside a missing one that differ in the ending alone.

    Args:
        path (str | PathLike): The file that is not there.

    Returns:
        str: As ', but 7.png is there: ...', or '' if there are none.
    """
    folder, name = os.path.split(path)
    stem = PurePath(name).stem
    beside = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    found = sorted(other for other in beside if PurePath(other).stem == stem and other != name)
    if not found:
        return ''
    return (
        f', but {" and ".join(found)} is there: call it {name} (readers of images look at the '
        f'content, not at the ending)'
    )
