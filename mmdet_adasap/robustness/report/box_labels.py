# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Where the words about boxes stand in an image: inside of it, and never over one another."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ASCENT, DESCENT = 0.95, 0.25
"""What letters need above and below their baseline, in font sizes; DejaVu Sans needs most of the
usual fonts (0.93 and 0.24)."""
NARROW, WIDE = frozenset(" .,:;'|!()[]-_ijlftrI"), frozenset('mwMW@%')
SLIDES = 8
"""Places along each side of a box that are tried."""
GRID = 24
"""Places across and down an image that are tried where a box has no free place beside it."""
TOUCHING = 0.5
"""Font sizes between a label and its box up to which both are seen to belong together."""


class Rectangle(NamedTuple):
    """Left, top, right and bottom edge."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: 'Rectangle') -> bool:
        """Return whether the two share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def gap(self, other: 'Rectangle') -> float:
        """Return the larger of the horizontal and the vertical distance; 0 where they touch."""
        across = max(self.left - other.right, other.left - self.right, 0.0)
        return max(across, self.top - other.bottom, other.top - self.bottom)


def text_width(text: str) -> float:
    """Return the width of bold text in font sizes, rather too much than too little.

    The font is the reader's. The numbers are those of DejaVu Sans Bold, the widest of the usual
    ones, rounded up.
    """
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    # Accents stand over the letter before them; format characters are not seen.
    if unicodedata.category(letter) in ('Mn', 'Me', 'Cf'):
        return 0.0
    if letter in NARROW:
        return 0.5
    if letter in WIDE or not letter.isascii():
        return 1.12
    return 0.86 if letter.isupper() else 0.73


def place_labels(
    boxes: Sequence[Rectangle],
    texts: Sequence[str],
    size: tuple[float, float],
    font_size: float,
    anywhere: bool = False,
) -> list[Rectangle | None]:
    """Place a text at each box: inside the image, and over no other text.

    The first box has the first choice. A text stands at the upper edge of its box if there is
    room, else at another edge.

    Args:
        boxes (Sequence[Rectangle]): The boxes in pixels; they may lie beyond the image.
        texts (Sequence[str]): The text of each.
        size (tuple[float, float]): Width and height of the image in pixels.
        font_size (float): In pixels.
        anywhere (bool): Whether a text may stand apart from its box if all places at it are
            taken. Defaults to False.

    Returns:
        list[Rectangle | None]: The place of each text, with some room around it; None if there
        is none.
    """
    placed: list[Rectangle | None] = []
    for box, text in zip(boxes, texts, strict=True):
        # 0.3 font sizes are the outlines at both ends (.tag in style.css).
        extent = (text_width(text) + 0.3) * font_size, (ASCENT + DESCENT) * font_size
        taken = [one for one in placed if one is not None]
        places = _inside(_places_at(box, extent), extent, size)
        free = (one for one in places if not any(one.overlaps(other) for other in taken))
        place = next((one for one in free if one.gap(box) <= TOUCHING * font_size), None)
        if place is None and anywhere:
            everywhere = sorted(_inside(_grid(extent, size), extent, size), key=box.gap)
            free = (one for one in everywhere if not any(one.overlaps(other) for other in taken))
            place = next(free, None)
        placed.append(place)
    return placed


def _places_at(box: Rectangle, extent: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield the left upper corners of places at the edges of a box, the best first."""
    width, height = extent
    rows = (box.top - height, box.bottom, box.top, box.bottom - height)
    for step in range(SLIDES + 1):
        share = step / SLIDES
        x = box.left + share * (box.right - box.left - width)
        yield from ((x, y) for y in rows)
    for step in range(SLIDES + 1):
        y = box.top + step / SLIDES * (box.bottom - box.top - height)
        yield from ((x, y) for x in (box.left - width, box.right))


def _grid(extent: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield left upper corners that are spread evenly over an image."""
    across, down = (max(side - own, 0) for side, own in zip(size, extent, strict=True))
    for row in range(GRID + 1):
        for column in range(GRID + 1):
            yield column / GRID * across, row / GRID * down


def _inside(
    corners: Iterator[tuple[float, float]], extent: tuple[float, float], size: tuple[float, float]
) -> Iterator[Rectangle]:
    """Yield rectangles with these left upper corners, moved into the image; none if too large."""
    width, height = extent
    if width > size[0] or height > size[1]:
        return
    for x, y in corners:
        left, top = min(max(x, 0.0), size[0] - width), min(max(y, 0.0), size[1] - height)
        yield Rectangle(left, top, left + width, top + height)
