# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Checks that a VOC set has all files, before a run that would fail on them much later."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .image_files import other_endings

_REMEDY = (
    'set data_root to the folder that holds VOC2007/ (VOCdevkit), or make the small built-in set '
    'with `python tools/demo/make_tiny_voc.py --out data/tiny_voc` and use '
    "data_root='data/tiny_voc/VOCdevkit/'"
)


def check_voc_files(
    data_root: str,
    ann_file: str,
    year_folder: str,
    img_subdir: str = 'JPEGImages',
    ann_subdir: str = 'Annotations',
) -> None:
    """Raise an error if a VOC set lacks a folder, the list of images or any file.

    mmdet itself notices a missing image only when training comes to it.

    Args:
        data_root (str): Folder with VOC2007/ and the like; '' if the other paths need none.
        ann_file (str): The list of image ids, data_root included.
        year_folder (str): VOC2007/ or the like, data_root included.
        img_subdir (str): Folder of the images in it. Defaults to 'JPEGImages'.
        ann_subdir (str): Folder of the annotations in it. Defaults to 'Annotations'.

    Raises:
        FileNotFoundError: If anything is missing. Names it, and what to do.
        ValueError: If the list is empty or no text.
    """
    if data_root and not os.path.isdir(data_root):
        raise FileNotFoundError(f'data_root={data_root!r} is not a folder: {_REMEDY}')
    year, id_list = Path(year_folder), Path(ann_file)
    if not id_list.is_file():
        # VOC's other lists, such as aeroplane_test.txt, are of single classes.
        existing = sorted(p.name for p in id_list.parent.glob('*.txt') if '_' not in p.stem)
        raise FileNotFoundError(
            f'ann_file={str(id_list)!r} does not exist'
            + (f' (only {", ".join(existing)})' if existing else '')
            + f': set ann_file to a list of image ids, or {_REMEDY}'
        )
    try:
        ids = [line for line in id_list.read_text('utf-8').splitlines() if line]
    except UnicodeDecodeError as error:
        raise ValueError(f'ann_file={str(id_list)!r} is not a text file ({error})') from error
    if not ids:
        raise ValueError(f'ann_file={str(id_list)!r} lists no images: give one image id a line')
    _check_folder(year / img_subdir, [f'{image_id}.jpg' for image_id in ids], 'images', id_list)
    _check_folder(year / ann_subdir, [f'{image_id}.xml' for image_id in ids], 'files', id_list)


def check_voc_dataset(dataset: Any) -> None:
    """Check the files of every VOC-like dataset inside a dataset, through its wrappers.

    Other datasets are ignored, and so are those on remote storage.

    Args:
        dataset (Any): A dataset as built from a config: an XMLDataset, or a RepeatDataset,
            ConcatDataset or the like around some.

    Raises:
        FileNotFoundError: If anything is missing, as of :func:`check_voc_files`.
    """
    inner = [*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)]
    for wrapped in inner:
        if wrapped is not None:
            check_voc_dataset(wrapped)
    # Of mmdet's datasets XMLDataset and its subclasses alone have it.
    if not hasattr(dataset, 'ann_subdir'):
        return
    remote = (dataset.backend_args or {}).get('backend', 'local') != 'local'
    if remote or '://' in dataset.ann_file:
        return
    check_voc_files(
        dataset.data_root,
        dataset.ann_file,
        dataset.sub_data_root,
        dataset.img_subdir,
        dataset.ann_subdir,
    )


def _check_folder(folder: Path, names: Sequence[str], kind: str, id_list: Path) -> None:
    # One listing instead of thousands of exists(), which are slow on network drives.
    existing = set(os.listdir(folder)) if folder.is_dir() else set()
    missing = [name for name in names if name not in existing]
    if missing:
        first = ', '.join(missing[:3]) + (', ...' if len(missing) > 3 else '')
        raise FileNotFoundError(
            f'{str(folder)!r} lacks {len(missing)} of the {len(names)} {kind} that '
            f'{str(id_list)!r} lists ({first}{other_endings(folder / missing[0])}): complete it, '
            f'or {_REMEDY}'
        )
