# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import os

# What a file begins with, and what it cannot lack near its end.
_ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND'}
# Cameras and editors may write something behind the image.
_TAIL = 65536


def check_whole(path: str | os.PathLike) -> None:
    """Refuse a JPEG or PNG file that was cut off: OpenCV makes the rest of it grey.

    Costs some microseconds; the image is not decoded. Other formats and what is no local file are
    passed over.

    Args:
        path (str | PathLike): The image.

    Raises:
        OSError: If the end is missing.
    """
    if not os.path.isfile(path):
        return
    with open(path, 'rb') as file:
        end = _ENDS.get(file.read(2))
        if end is None:
            return
        file.seek(max(os.path.getsize(path) - _TAIL, 0))
        if end not in file.read():
            raise OSError('it is cut off: its end is missing')
