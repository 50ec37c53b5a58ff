# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import os
from collections.abc import Sequence
from pathlib import Path

_REMEDY = (
    'set data_root to the folder that holds VOC2007/ (VOCdevkit), or make the small built-in set '
    'with `python tools/make_tiny_voc.py --out data/tiny_voc` and use '
    "data_root='data/tiny_voc/VOCdevkit/'"
)


def check_voc_files(
    data_root: str,
    ann_file: str,
    sub_data_root: str,
    img_subdir: str = 'JPEGImages',
    ann_subdir: str = 'Annotations',
) -> None:
    """Refuse a VOC set of which a folder, the list of images or any file is missing.

    mmdet itself would find a missing image only when training comes to it.

    Args:
        data_root (str): Folder with VOC2007/ and the like, as in the config.
        ann_file (str): The list of image ids, under data_root or absolute.
        sub_data_root (str): The year's folder (VOC2007/), under data_root or absolute.
        img_subdir (str): Folder of the images in it. Defaults to 'JPEGImages'.
        ann_subdir (str): Folder of the annotations in it. Defaults to 'Annotations'.

    Raises:
        FileNotFoundError: If anything is missing. Names it, and what to do.
    """
    root = Path(data_root or '.')
    if not root.is_dir():
        raise FileNotFoundError(f'data_root={data_root!r} is no folder: {_REMEDY}')
    year, id_list = root / sub_data_root, root / ann_file
    if not id_list.is_file():
        there = sorted(path.name for path in id_list.parent.glob('*.txt') if '_' not in path.stem)
        raise FileNotFoundError(
            f'ann_file={str(id_list)!r} does not exist'
            + (f' ({", ".join(there)} do)' if there else '')
            + f': set ann_file to a list of image ids, or {_REMEDY}'
        )
    ids = [line for line in id_list.read_text().split('\n') if line]
    _check_folder(year / img_subdir, [f'{image_id}.jpg' for image_id in ids], 'images', id_list)
    _check_folder(year / ann_subdir, [f'{image_id}.xml' for image_id in ids], 'files', id_list)


def _check_folder(folder: Path, names: Sequence[str], kind: str, id_list: Path) -> None:
    # One listing instead of thousands of questions, which are slow on network drives.
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    missing = [name for name in names if name not in there]
    if missing:
        first = ', '.join(missing[:3]) + (', ...' if len(missing) > 3 else '')
        raise FileNotFoundError(
            f'{str(folder)!r} lacks {len(missing)} of the {len(names)} {kind} that '
            f'{str(id_list)!r} lists ({first}): complete it, or {_REMEDY}'
        )
