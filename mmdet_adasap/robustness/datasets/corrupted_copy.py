# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Corrupted copies of a VOC set as files, for programs that cannot corrupt while they load."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ...distributions import pixel_versions
from ...fileio import remove_partial_files, write_atomically
from ..corruptions import check_condition, check_mode
from .image_files import read_image
from .transforms import ImageCorruption
from .voc_files import check_voc_files

MANIFEST = 'corrupted_voc.json'
# To be increased whenever the same settings begin to give other files.
FORMAT = 1


@dataclass(frozen=True)
class CopySettings:
    """Settings of a corrupted copy.

    Args:
        corruptions (tuple[str, ...]): Names of corruptions.
        severities (tuple[int, ...]): 1 (light) to 5 (heavy).
        seed (int): Seed of the benchmark. Defaults to 0.
        year (str): Folder in the VOCdevkit. Defaults to 'VOC2007'.
        split (str): List of image ids in ImageSets/Main, without its ending. Defaults to 'test'.
        quality (int | None): Of JPEG, 1 to 100; None for PNG, which loses nothing. Defaults to
            None.
        mode (str): 'fast', or 'exact' for the draws of the published code. Defaults to 'fast'.

    Raises:
        TypeError: If a severity is no int.
        ValueError: If a value is not one of those above, or there is no corruption or severity.
    """

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int = 0
    year: str = 'VOC2007'
    split: str = 'test'
    quality: int | None = None
    mode: str = 'fast'

    def __post_init__(self) -> None:
        for name in ('corruptions', 'severities'):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f'{name}={values} must name one or more, each once')
        for corruption, severity in self.conditions:
            check_condition(corruption, severity)
        check_mode(self.mode)
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f'quality={self.quality} must be from 1 to 100, or None for PNG')

    @property
    def conditions(self) -> tuple[tuple[str, int], ...]:
        """All pairs of a corruption and a severity."""
        return tuple((name, level) for name in self.corruptions for level in self.severities)


def write_corrupted_voc(
    data_root: str | Path, out: str | Path, settings: CopySettings, workers: int = 1
) -> dict[str, str]:
    """Write corrupted copies of one split, or go on where an interrupted call stopped.

    ``out`` becomes a data_root with one ``img_subdir`` for each condition,
    ``JPEGImages/fog/3`` for example; pixels are those of CorruptedVOCDataset (before JPEG). VOC's
    readers ask for names that end in .jpg, and see from the content what it is, so that PNG files
    have such names, too. ``corrupted_voc.json`` in it holds settings, versions and the sha256 of
    every image, once all of them are there.

    Args:
        data_root (str | Path): The VOCdevkit, left as it is.
        out (str | Path): Folder of the copies.
        settings (CopySettings): Which copies to write.
        workers (int): Processes; the files are the same for any number. Defaults to 1.

    Returns:
        dict[str, str]: Images that could not be read or corrupted, by id, and why. The others are
        written; with any in here the manifest stays without sha256.

    Raises:
        FileExistsError: If the folder holds something else, or copies with other settings or by
            other versions.
        FileNotFoundError: If the set lacks anything.
        OSError: If a file cannot be written.
        RuntimeError: If a process was killed.
        ValueError: If the list of images is empty, or workers less than 1.
    """
    if workers < 1:
        raise ValueError(f'workers={workers} must be 1 or more')
    source, target = Path(data_root, settings.year), Path(out, settings.year)
    id_list = source / 'ImageSets' / 'Main' / f'{settings.split}.txt'
    check_voc_files(str(data_root), str(id_list), str(source))
    if target.resolve() == source.resolve():
        raise FileExistsError(f'--out {out} is the set itself: choose another folder')
    text = id_list.read_bytes()
    image_ids = [line for line in text.decode().splitlines() if line]

    manifest = {
        'format': FORMAT,
        'settings': json.loads(json.dumps(asdict(settings))),
        'images': hashlib.sha256(text).hexdigest(),
        'versions': pixel_versions(),
    }
    _start_or_resume(Path(out), manifest)
    _copy_annotations(source, target, id_list, image_ids)
    _make_folders(target, settings)
    jobs = ((source, target, image_id, settings) for image_id in image_ids)
    hashes, failed = {}, {}
    with tqdm(total=len(image_ids), desc='corrupted VOC', unit='image') as progress:
        for image_id, written, reason in _run(jobs, workers):
            hashes.update(written)
            if reason:
                failed[image_id] = reason
            progress.update()
    # Only a complete copy gets the hashes, so that their presence says that it is complete.
    if not failed:
        manifest['sha256'] = dict(sorted(hashes.items()))
        write_atomically(Path(out, MANIFEST), json.dumps(manifest, indent=2) + '\n')
    return dict(sorted(failed.items()))


def _start_or_resume(out: Path, manifest: dict) -> None:
    """Write the manifest, or check that the one in the folder has the same settings."""
    path = out / MANIFEST
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(
                f'--out {out} exists and was not made by this tool, which therefore leaves it '
                'alone: choose another folder'
            )
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(manifest, indent=2) + '\n')
        return
    try:
        stored = json.loads(path.read_text())
        # Flat, so that the error names the setting or the package.
        stored = {**stored, **stored['settings'], **stored['versions']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f'{path} cannot be read ({error}): choose another folder, or remove {out}'
        ) from error
    wanted = {**manifest, **manifest['settings'], **manifest['versions']}
    differing = [
        f'{name} {stored.get(name)} instead of {value}'
        for name, value in wanted.items()
        if stored.get(name) != value and not isinstance(value, dict)
    ]
    if differing:
        raise FileExistsError(
            f'--out {out} holds other copies ({"; ".join(differing)}): choose another folder'
        )


def _copy_annotations(source: Path, target: Path, id_list: Path, ids: Sequence[str]) -> None:
    lists, annotations = target / 'ImageSets' / 'Main', target / 'Annotations'
    for folder in (lists, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        shutil.copyfile(
            source / 'Annotations' / f'{image_id}.xml', annotations / f'{image_id}.xml'
        )
    shutil.copyfile(id_list, lists / id_list.name)


def _make_folders(target: Path, settings: CopySettings) -> None:
    for corruption, severity in settings.conditions:
        folder = _image_folder(target, corruption, severity)
        folder.mkdir(parents=True, exist_ok=True)
        # Left by a call that was killed while it wrote.
        remove_partial_files(folder)


def _image_folder(target: Path, corruption: str, severity: int) -> Path:
    return target / 'JPEGImages' / corruption / str(severity)


def _run(jobs: Iterator[tuple], workers: int) -> Iterator[tuple[str, dict[str, str], str]]:
    """Run jobs in several processes; only a few are submitted at a time, to save memory."""
    if workers == 1:
        for job in jobs:
            yield _write_image(*job)
        return
    # Each process has one core; OpenCV's own threads would compete for it.
    cv2.setNumThreads(1)
    # Four jobs for each process keep all of them busy while results are collected.
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        waiting: set[Future] = {
            pool.submit(_write_image, *job) for job in islice(jobs, 4 * workers)
        }
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    waiting |= {pool.submit(_write_image, *job) for job in islice(jobs, 1)}
        except BrokenProcessPool as error:
            raise RuntimeError(
                'a worker process was killed, perhaps for memory: the same call goes on where it '
                'stopped, with a smaller --workers if it happens again'
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_image(
    source: Path, target: Path, image_id: str, settings: CopySettings
) -> tuple[str, dict[str, str], str]:
    """Write those copies of one image that do not exist yet.

    Returns:
        tuple[str, dict[str, str], str]: The image's id, the sha256 of each copy by its path, and
        why there are no copies, '' if there are.
    """
    path = source / 'JPEGImages' / f'{image_id}.jpg'
    image = None
    hashes = {}
    for corruption, severity in settings.conditions:
        file = _image_folder(target, corruption, severity) / f'{image_id}.jpg'
        if file.exists():
            data = file.read_bytes()
        else:
            if image is None:
                image = read_image(path)
            if image is None:
                return image_id, {}, f'{path} is no readable image'
            step = ImageCorruption(corruption, severity, settings.seed, mode=settings.mode)
            try:
                corrupted = step({'img': image, 'img_id': image_id, 'img_path': str(path)})['img']
            except ValueError as error:
                return image_id, {}, str(error)
            data = _encode(corrupted, settings.quality)
            write_atomically(file, data, 'make room for it and call again, to go on here')
        name = file.relative_to(target.parent).as_posix()
        hashes[name] = hashlib.sha256(data).hexdigest()
    return image_id, hashes, ''


def _encode(image: np.ndarray, quality: int | None) -> bytes:
    if quality is None:
        return cv2.imencode('.png', image)[1].tobytes()
    return cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
