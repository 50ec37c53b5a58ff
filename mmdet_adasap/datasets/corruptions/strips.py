# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Iterator


def strips(height: int, width: int, pixels: int = 2**14) -> Iterator[slice]:
    """Cut an image into strips of whole rows that stay in a processor's cache.

    What is computed strip by strip needs no large arrays in between. To get those from the
    system, and to give them back, takes longer than most of the arithmetic does.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        pixels (int): About how many pixels a strip has. Defaults to 2**14.

    Yields:
        slice: The rows of the next strip.
    """
    rows = max(pixels // width, 1)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))
