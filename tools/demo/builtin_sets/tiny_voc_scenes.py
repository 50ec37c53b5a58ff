# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What is in each picture of the built-in VOC, and how it is drawn.

Real handwritten digits (scikit-learn's, 8 x 8) stand on crops of real photographs (those that
come inside scikit-image and scikit-learn). Everything is keyed by (seed, split, index): a picture
stays the same when more of them are asked for.
"""

import colorsys
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

TINY_VOC_CLASSES = (
    'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine',
)  # fmt: skip
SPLITS = ('train', 'val', 'test')

#: Share of each class's digits, and of each photograph's longer side, that a split owns.
DIGIT_SHARES = {'train': 0.6, 'val': 0.2, 'test': 0.2}
PHOTO_SHARES = {'train': 0.4, 'val': 0.3, 'test': 0.3}

#: Photograph to the folder it comes in, inside the package of that name.
PHOTOS = {
    'astronaut.png': ('skimage', 'data'),
    'brick.png': ('skimage', 'data'),
    'camera.png': ('skimage', 'data'),
    'chelsea.png': ('skimage', 'data'),
    'china.jpg': ('sklearn', 'datasets/images'),
    'coffee.png': ('skimage', 'data'),
    'flower.jpg': ('sklearn', 'datasets/images'),
    'grass.png': ('skimage', 'data'),
    'gravel.png': ('skimage', 'data'),
    'motorcycle_left.png': ('skimage', 'data'),
    'rocket.jpg': ('skimage', 'data'),
}

# Height of a digit as a share of the picture's side: 28 to 72 pixels of 160.
_HEIGHTS = (28 / 160, 72 / 160)
# Levels (of 255) between a digit and what is behind it.
_CONTRASTS = (85, 160)
# Least and greatest number of digits in a picture, and how often a place is tried for them: in
# a full picture fewer stand, instead of a search without end.
_OBJECTS = (2, 5)
_TRIES = 30
# Of the smaller of two boxes, how much the other may cover.
_MAX_OVERLAP = 0.1
# Opacity (of 255) from which a pixel belongs to the digit and so to its box.
_BOX_OPACITY = 96


@dataclass(frozen=True)
class PlacedDigit:
    """One object of a scene.

    Attributes:
        digit (int): Index into scikit-learn's digits.
        label (int): Which digit it is, 0 to 9.
        box (tuple[int, int, int, int]): First and last column and row, counted from 0, as
            (xmin, ymin, xmax, ymax), both ends inside.
        height (int): Height of the 8 x 8 patch in pixels, before it is turned.
        angle (float): Turn in degrees.
        colour (tuple[float, float, float]): RGB direction, 0 to 1.
        contrast (float): Distance in brightness from what is behind, in levels.
        opacity (float): 0 to 1.
    """

    digit: int
    label: int
    box: tuple[int, int, int, int]
    height: int
    angle: float
    colour: tuple[float, float, float]
    contrast: float
    opacity: float


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        image_id (str): File name without ending.
        split (str): 'train', 'val' or 'test'.
        size (int): Side of the picture in pixels.
        photo (str): File name of the photograph.
        crop (tuple[int, int, int, int]): Its piece, (left, top, right, bottom), ends outside.
        objects (tuple[PlacedDigit, ...]): What stands on it.
    """

    image_id: str
    split: str
    size: int
    photo: str
    crop: tuple[int, int, int, int]
    objects: tuple[PlacedDigit, ...]


@cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read scikit-learn's handwritten digits from its file, without importing it.

    Returns:
        tuple[ndarray, ndarray]: Images, uint8, (1797, 8, 8), 0 to 255; labels, int, (1797,).
    """
    table = np.loadtxt(_package_file('sklearn', 'datasets/data', 'digits.csv.gz'), delimiter=',')
    # scikit-learn's digits have levels from 0 to 16.
    pixels = (table[:, :64] * 255 / 16).astype(np.uint8)
    return pixels.reshape(-1, 8, 8), table[:, 64].astype(int)


@cache
def load_photo(name: str) -> Image.Image:
    """Read a photograph of ``PHOTOS`` as RGB."""
    with Image.open(_package_file(*PHOTOS[name], name)) as photo:
        return photo.convert('RGB')


def _package_file(package: str, folder: str, name: str) -> Path:
    project = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}[package]
    spec = find_spec(package)
    path = Path(spec.origin).parent / folder / name if spec else None
    if path is None or not path.is_file():
        why = f'{project} does not carry {name}' if spec else f'{project} is not installed'
        raise FileNotFoundError(
            f'the built-in sets are made from files in scikit-learn and scikit-image, but {why}:'
            " install both with `pip install 'scikit-learn==1.7.*' 'scikit-image==0.25.*'`"
        )
    return path


def digit_pools(seed: int) -> dict[str, list[list[int]]]:
    """Deal the digits out to the splits, class by class.

    Args:
        seed (int): Seed of the set.

    Returns:
        dict[str, list[list[int]]]: For each split and label, indices into the digits.
    """
    labels = load_digits()[1]
    pools: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    for label in range(len(TINY_VOC_CLASSES)):
        members = np.flatnonzero(labels == label)
        order = generator(seed, 'digits', label).permutation(len(members))
        start = 0
        for split in SPLITS:
            stop = start + round(len(members) * DIGIT_SHARES[split])
            stop = len(members) if split == SPLITS[-1] else stop
            pools[split].append(sorted(members[order[start:stop]].tolist()))
            start = stop
    return pools


def photo_zone(name: str, split: str) -> tuple[int, int, int, int]:
    """Return the part of a photograph that a split may cut from.

    Args:
        name (str): One of ``PHOTOS``.
        split (str): 'train', 'val' or 'test'.

    Returns:
        tuple[int, int, int, int]: (left, top, right, bottom), right and bottom outside. The
        zones of different splits share no pixel.
    """
    width, height = load_photo(name).size
    before = sum(PHOTO_SHARES[other] for other in SPLITS[: SPLITS.index(split)])
    longer = max(width, height)
    start, stop = round(longer * before), round(longer * (before + PHOTO_SHARES[split]))
    return (start, 0, stop, height) if width >= height else (0, start, width, stop)


def plan_scenes(seed: int, split: str, count: int, size: int) -> Iterator[Scene]:
    """Decide what is in the pictures of a split.

    Args:
        seed (int): Seed of the set.
        split (str): 'train', 'val' or 'test'.
        count (int): Number of pictures.
        size (int): Side of a picture in pixels.

    Yields:
        Scene: One after the other.
    """
    pools = digit_pools(seed)[split]
    for index in range(count):
        rng = generator(seed, split, index)
        photo = sorted(PHOTOS)[rng.integers(len(PHOTOS))]
        yield Scene(
            image_id=f'{SPLITS.index(split) + 1}{index:05d}',
            split=split,
            size=size,
            photo=photo,
            crop=plan_crop(rng, photo_zone(photo, split)),
            objects=_plan_objects(rng, pools, size),
        )


def plan_crop(
    rng: np.random.Generator, zone: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Choose a square in a zone, as (left, top, right, bottom), right and bottom outside."""
    left, top, right, bottom = zone
    side = int(min(right - left, bottom - top) * rng.uniform(0.6, 1))
    x = left + int(rng.integers(right - left - side + 1))
    y = top + int(rng.integers(bottom - top - side + 1))
    return x, y, x + side, y + side


def _plan_objects(
    rng: np.random.Generator, pools: list[list[int]], size: int
) -> tuple[PlacedDigit, ...]:
    wanted = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
    placed: list[PlacedDigit] = []
    for _ in range(_TRIES):
        candidate = _plan_object(rng, pools, size)
        if all(_overlap(candidate.box, other.box) <= _MAX_OVERLAP for other in placed):
            placed.append(candidate)
        if len(placed) == wanted:
            break
    return tuple(placed)


def _plan_object(rng: np.random.Generator, pools: list[list[int]], size: int) -> PlacedDigit:
    label = int(rng.integers(len(pools)))
    digit = pools[label][int(rng.integers(len(pools[label])))]
    return place_digit(rng, digit, label, size, _HEIGHTS, _CONTRASTS)


def place_digit(
    rng: np.random.Generator,
    digit: int,
    label: int,
    size: int,
    heights: tuple[float, float],
    contrasts: tuple[float, float],
) -> PlacedDigit:
    """Decide where and how a digit stands in a picture.

    Args:
        rng (Generator): Draws it.
        digit (int): Index into the digits.
        label (int): Which digit it is.
        size (int): Side of the picture in pixels.
        heights (tuple[float, float]): Least and greatest height, as shares of the side.
        contrasts (tuple[float, float]): Least and greatest contrast, in levels.

    Returns:
        PlacedDigit: Inside the picture as a whole.
    """
    height = round(size * rng.uniform(*heights))
    angle = float(rng.uniform(-12, 12))
    rows, columns = draw_mask(digit, height, angle).shape
    x, y = (int(rng.integers(size - length + 1)) for length in (columns, rows))
    return PlacedDigit(
        digit=digit,
        label=label,
        box=(x, y, x + columns - 1, y + rows - 1),
        height=height,
        angle=angle,
        colour=colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.8), 1.0),
        contrast=float(rng.uniform(*contrasts)),
        opacity=float(rng.uniform(0.8, 1)),
    )


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return the share of the smaller box that the other one covers."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)


def draw_mask(digit: int, height: int, angle: float) -> np.ndarray:
    """Draw one digit, cut to the box that holds it.

    Args:
        digit (int): Index into the digits.
        height (int): What the 8 rows are enlarged to, in pixels.
        angle (float): Turn in degrees.

    Returns:
        ndarray: Opacity, uint8, (rows, columns).
    """
    # A margin of two pixels, so 12 a side instead of 8, keeps the corners when it is turned.
    patch = Image.fromarray(np.pad(load_digits()[0][digit], 2))
    side = round(height * 12 / 8)
    patch = patch.resize((side, side), Image.Resampling.BICUBIC)
    patch = patch.rotate(angle, Image.Resampling.BICUBIC)
    # Enlarging blurs: a steeper ramp gives the stroke an edge again.
    opacity = np.clip((np.asarray(patch, dtype=np.int32) - 96) * 2, 0, 255).astype(np.uint8)
    inside = opacity >= _BOX_OPACITY
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_scene(scene: Scene) -> Image.Image:
    """Draw a picture.

    Args:
        scene (Scene): What is in it.

    Returns:
        Image: RGB, size x size.
    """
    background = load_photo(scene.photo).crop(scene.crop)
    canvas = background.resize((scene.size, scene.size), Image.Resampling.BICUBIC)
    pixels = np.array(canvas)
    for placed in scene.objects:
        left, top, right, bottom = placed.box
        behind = pixels[top : bottom + 1, left : right + 1]
        opacity = draw_mask(placed.digit, placed.height, placed.angle) * placed.opacity / 255
        ink = np.array(_ink(placed, behind))
        mixed = behind + opacity[..., None] * (ink - behind)
        pixels[top : bottom + 1, left : right + 1] = (mixed + 0.5).astype(np.uint8)
    return Image.fromarray(pixels)


def _ink(placed: PlacedDigit, behind: np.ndarray) -> list[float]:
    """Return a digit's colour, brighter or darker than what it stands on by its contrast."""
    # Brightness of red, green and blue as in ITU-R BT.601, which JPEG uses, too.
    weights = (0.299, 0.587, 0.114)
    # Sums of integers: the same bytes whatever the order in which a processor adds.
    sums = behind.sum(axis=(0, 1), dtype=np.int64).tolist()
    area = behind.shape[0] * behind.shape[1]
    brightness = sum(w * s / area for w, s in zip(weights, sums, strict=True))
    sign = -1 if brightness > 128 else 1
    wanted = max(brightness + sign * placed.contrast, 0)
    own = sum(w * c for w, c in zip(weights, placed.colour, strict=True))
    return [min(channel * wanted / own, 255.0) for channel in placed.colour]


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """Return a picture's generator: what it draws depends on seed and key alone."""
    # blake2b and not hash(), which differs from process to process.
    digest = hashlib.blake2b(json.dumps([seed, *key]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, 'little')))
