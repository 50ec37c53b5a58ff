# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The built-in classification set as class folders, in ImageNet's layout.

A picture is a scene of the built-in VOC with one digit, which is its class; so splits share
neither digits nor regions of photographs.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .made_set import MadeSet, put_set
from .tiny_voc_scenes import (
    PHOTOS,
    SPLITS,
    TINY_VOC_CLASSES,
    Scene,
    digit_pools,
    draw_scene,
    generator,
    photo_zone,
    place_digit,
    plan_crop,
)

__all__ = ['TINY_IMAGENET_CLASSES', 'build_tiny_imagenet', 'plan_tiny_imagenet']

#: Names of the class folders, sorted as the labels are.
TINY_IMAGENET_CLASSES = tuple(f'{label}_{name}' for label, name in enumerate(TINY_VOC_CLASSES))

MANIFEST = 'tiny_imagenet.json'
# Counts up whenever the same settings begin to give other bytes.
FORMAT = 2
# Corruptions are defined from 32 pixels on.
MIN_SIZE = 32
# File names have four digits for the number.
MAX_COUNT = 9999

# Height of a digit as a share of the picture's side, and its distance from the background. Smaller
# and fainter ones, as in the built-in VOC, a classifier does not begin to tell apart within a
# minute of a CPU: it has no boxes that say where to look.
_HEIGHTS = (0.75, 0.95)
_CONTRASTS = (120, 200)


def plan_tiny_imagenet(
    seed: int = 0, train: int = 300, val: int = 50, test: int = 100, size: int = 48
) -> Iterator[Scene]:
    """Plan what every picture of the set holds, without drawing it.

    Args:
        seed (int): Seed of the set, 0 or more. Defaults to 0.
        train (int): Number of training images of each class. Defaults to 300.
        val (int): Number of validation images of each class. Defaults to 50.
        test (int): Number of test images of each class. Defaults to 100.
        size (int): Side of an image in pixels, 32 or more. Defaults to 48.

    Yields:
        Scene: train, val, test, and in each class after class. The id is the path of its file
        without ending.

    Raises:
        ValueError: If a number is out of range.
    """
    counts = {'train': train, 'val': val, 'test': test}
    _check_numbers(seed, counts, size)
    pools = digit_pools(seed)
    for path, split, label, index in _members(counts):
        rng = generator(seed, 'tiny_imagenet', split, label, index)
        photo = sorted(PHOTOS)[rng.integers(len(PHOTOS))]
        digits = pools[split][label]
        yield Scene(
            image_id=path,
            split=split,
            size=size,
            photo=photo,
            crop=plan_crop(rng, photo_zone(photo, split)),
            objects=(
                place_digit(
                    rng, digits[rng.integers(len(digits))], label, size, _HEIGHTS, _CONTRASTS
                ),
            ),
        )


def build_tiny_imagenet(
    out: str | Path,
    seed: int = 0,
    train: int = 300,
    val: int = 50,
    test: int = 100,
    size: int = 48,
    force: bool = False,
) -> bool:
    """Write ``train/0_zero/*.png`` and so on under a folder, in one piece or not at all.

    The same settings give the same pixels with the pinned versions of numpy and Pillow.

    Args:
        out (str | Path): The folder. It appears only when it is complete.
        seed (int): Seed of the set, 0 or more. Defaults to 0.
        train (int): Number of training images of each class. Defaults to 300.
        val (int): Number of validation images of each class. Defaults to 50.
        test (int): Number of test images of each class. Defaults to 100.
        size (int): Side of an image in pixels, 32 or more. Defaults to 48.
        force (bool): Whether to replace a set with other settings. Defaults to False.

    Returns:
        bool: False if the same set was there already and nothing was done.

    Raises:
        FileExistsError: If the folder holds another set, part of one, or something else.
        FileNotFoundError: If scikit-learn or scikit-image is missing.
        ValueError: If a number is out of range.
    """
    counts = {'train': train, 'val': val, 'test': test}
    _check_numbers(seed, counts, size)
    settings = {'seed': seed, **counts, 'size': size}
    made = MadeSet(
        manifest=MANIFEST,
        version=FORMAT,
        settings=settings,
        write=partial(_write_folders, settings=settings),
        check=partial(_check_files, counts=counts),
    )
    return put_set(made, Path(out), force)


def _check_numbers(seed: int, counts: dict[str, int], size: int) -> None:
    for name, count in counts.items():
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(
                f'{name}={count} must be a number of images of each class from 1 to {MAX_COUNT}'
            )
    if size < MIN_SIZE:
        raise ValueError(
            f'size={size} must be {MIN_SIZE} pixels or more, from which on corruptions are defined'
        )
    if seed < 0:
        raise ValueError(f'seed={seed} must be 0 or more')


def _members(counts: dict[str, int]) -> Iterator[tuple[str, str, int, int]]:
    """Yield path without ending, split, label and number in the class of each picture."""
    for split, count in counts.items():
        for label, folder in enumerate(TINY_IMAGENET_CLASSES):
            for index in range(count):
                # No two files have the same name, whatever their folders.
                name = f'{SPLITS.index(split) + 1}{label}{index:04d}'
                yield f'{split}/{folder}/{name}', split, label, index


def _write_folders(out: Path, settings: dict[str, int]) -> None:
    for split in SPLITS:
        for folder in TINY_IMAGENET_CLASSES:
            (out / split / folder).mkdir(parents=True)
    total = sum(settings[split] for split in SPLITS) * len(TINY_IMAGENET_CLASSES)
    scenes = plan_tiny_imagenet(**settings)
    for scene in tqdm(scenes, total=total, desc='built-in ImageNet', unit='image'):
        draw_scene(scene).save(out / f'{scene.image_id}.png', 'PNG')


def _check_files(out: Path, counts: dict[str, int]) -> None:
    for path, *_ in _members(counts):
        if not (out / f'{path}.png').is_file():
            raise FileNotFoundError(f'{path}.png')
