# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Test sets with one folder for each class; all folders must be there with all images."""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

# Compared in lower case: ILSVRC2012 writes .JPEG, and smaller copies of it .jpg or .png.
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.webp')


# In a file of this package, so that nobody needs ILSVRC2012's devkit to test.
@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids of ILSVRC2012, sorted, which is the order of its labels."""
    return tuple(Path(__file__).with_name('imagenet_wnids.txt').read_text('utf-8').split())


def read_names(key: str, names: str | os.PathLike | Sequence[str]) -> tuple[str, ...]:
    """Read the names of class folders from a config.

    Args:
        key (str): Key in the config, for the messages.
        names (str | PathLike | Sequence[str]): The names, or a text file with one a line.

    Returns:
        tuple[str, ...]: The names in this order.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If these are no names.
        ValueError: If there are none, or one comes twice, or the file is no text.
    """
    given = repr(names)
    if isinstance(names, str | os.PathLike):
        file = Path(names).expanduser()
        if not file.is_file():
            raise FileNotFoundError(
                f'{key}={given} is not a file: give a list of class folders, or a text file with '
                'one a line'
            )
        try:
            lines = file.read_text('utf-8').splitlines()
            names = [line.strip() for line in lines if line.strip()]
        except UnicodeDecodeError as error:
            raise ValueError(f'{key}={given} is not a text file ({error})') from error
    elif not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f'{key}={given} must be a list of class folders, each a str')
    if not names:
        raise ValueError(
            f'{key}={given} names no class folder: name one at least, or leave it out'
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f'{key} names {_first(twice)} twice: name each class once')
    return tuple(names)


def folders_of(labels: Collection[int], names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the class folders of some labels, as ``subset`` takes them; None for all.

    Args:
        labels (Collection[int]): The labels. Those without a folder are ignored.
        names (Sequence[str]): All class folders in the order of the labels.
    """
    # None lets the dataset check for folders that are no class in the whole set.
    wanted = tuple(name for label, name in enumerate(names) if label in labels)
    return None if len(wanted) == len(names) else wanted


def find_images(
    folder: Path,
    names: Sequence[str],
    per_class: int | None = None,
    subset: Sequence[str] | None = None,
) -> list[dict]:
    """List the images of a set, after checking all of its folders.

    Files without an image's ending, and all whose name begins with a dot, are ignored.

    Args:
        folder (Path): Holds the class folders.
        names (Sequence[str]): All class folders in the order of the labels. A label is the index
            in here, whatever folders exist.
        per_class (int | None): Images that each folder must hold. Defaults to None, any number
            but 0.
        subset (Sequence[str] | None): The class folders to check and read. Defaults to None,
            all.

    Returns:
        list[dict]: In the order of the labels and of the file names, 'img_path', 'gt_label' and
        'img_id', which is the path in ``folder``.

    Raises:
        FileNotFoundError: If class folders are missing.
        ValueError: If there are other folders, if a folder holds another number of images, or if
            ``subset`` names what is no class.
    """
    labels = {name: label for label, name in enumerate(names)}
    unknown = [name for name in subset or () if name not in labels]
    if unknown:
        raise ValueError(
            f'subset names {_first(unknown)}, of which there is no class: take it out'
        )
    wanted = [name for name in names if subset is None or name in set(subset)]
    existing = {name for name in _entries(folder) if (folder / name).is_dir()}
    images = {name: _images(folder / name) for name in wanted if name in existing}
    problems = _problems(existing, labels, wanted, images, per_class)
    if problems:
        _raise(folder, problems, len(wanted) == len(labels), per_class)
    return [
        {
            'img_path': str(folder / name / file),
            'gt_label': labels[name],
            'img_id': f'{name}/{file}',
        }
        for name in wanted
        for file in images[name]
    ]


def _entries(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith('.'))


def _images(folder: Path) -> list[str]:
    return [name for name in _entries(folder) if name.lower().endswith(SUFFIXES)]


def _problems(
    existing: Collection[str],
    labels: Collection[str],
    wanted: Sequence[str],
    images: Mapping[str, Sequence[str]],
    per_class: int | None,
) -> dict[str, str]:
    """Return what is wrong with the folders: 'missing', 'other' and 'count', each a phrase."""
    problems = {}
    missing = [name for name in wanted if name not in existing]
    if missing:
        problems['missing'] = (
            f'lacks {len(missing)} of {len(wanted)} class folders ({_first(missing)})'
        )
    other = sorted(name for name in existing if name not in labels)
    if other:
        problems['other'] = f'has {len(other)} folders that are no class ({_first(other)})'
    wrong = [
        f'{name}: {len(files)}'
        for name, files in images.items()
        if not files or (per_class is not None and len(files) != per_class)
    ]
    if wrong:
        number = 'any image' if per_class is None else f'{per_class} images'
        problems['count'] = f'has {len(wrong)} class folders without {number} ({_first(wrong)})'
    return problems


def _raise(
    folder: Path, problems: Mapping[str, str], all_classes: bool, per_class: int | None
) -> NoReturn:
    """Raise one error that names all problems, and what to do about each."""
    remedy = 'unpack it anew, or set data_root to where it is whole'
    if 'other' in problems:
        remedy += '; take away what is none of it'
    if all_classes and problems.keys() & {'missing', 'count'}:
        remedy += (
            '. To test on the other classes on purpose, name their folders in subset=[...] or in '
            'a text file with one a line: labels stay those of the whole set'
        )
    if 'count' in problems and per_class is not None:
        remedy += '. If it is meant to hold other numbers of images, set images_per_class=None'
    kind = FileNotFoundError if 'missing' in problems else ValueError
    raise kind(f'{str(folder)!r} {", and ".join(problems.values())}: {remedy}')


def _first(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
