# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Annotation files, most of all VOC's: which one is damaged, and which objects nobody reads."""

import copy
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from ...errors import one_line

SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
"""Tags of a box in VOC's files."""


def find_damaged_annotation(config: Mapping) -> None:
    """Raise an error that names the annotation file for which a dataset cannot be read.

    mmdet and mmpretrain raise what Python's parsers do, which name no file.

    Args:
        config (Mapping): Config of a dataset that could not be built, or of one around it.

    Raises:
        ValueError: If a file is damaged. If none is, nothing is raised.
    """
    inner = config.get('datasets') or config.get('dataset') or []
    for part in [inner] if isinstance(inner, Mapping) else inner:
        find_damaged_annotation(part)
    if inner:
        return
    try:
        # lazy_init: where its files are, without reading them.
        dataset = DATASETS.build(ConfigDict(copy.deepcopy({**config, 'lazy_init': True})))
    except Exception:  # the caller has the error that counts
        return
    check_annotations(dataset)
    try:
        dataset.full_init()
    except OSError:  # it names its file
        return
    except Exception as error:
        file = str(getattr(dataset, 'ann_file', '') or '')
        if file and os.path.basename(file) not in str(error):
            reason, kind = one_line(error).removeprefix('ValueError: '), type(dataset).__name__
            raise ValueError(
                f'{reason}, where {file} is read as annotations of {kind}: mend it'
            ) from error


def check_annotations(dataset: Any) -> None:
    """Raise an error that names the first annotation file of a VOC set that is damaged.

    Args:
        dataset (Any): An XMLDataset of mmdet, or VOC of mmpretrain; others are ignored.

    Raises:
        ValueError: Naming the file, and what is wrong with it.
    """
    # mmpretrain reads no boxes, but cannot do without the tag that VOC itself always has.
    boxes = hasattr(dataset, 'ann_subdir')
    tags = ('name', 'bndbox', *(f'bndbox/{side}' for side in SIDES)) if boxes else ()
    for file, id_list in _annotation_files(dataset):
        problem = _problem(file, tags or ('name', 'difficult'))
        if problem:
            raise ValueError(
                f'{file} is no annotation of VOC ({problem}): mend it, or take the image out of '
                f'{id_list}'
            )


def _annotation_files(dataset: Any) -> Iterator[tuple[str, str]]:
    """Yield the annotation files of a VOC set on a local disk, with the list they are from."""
    if hasattr(dataset, 'ann_subdir'):
        id_list = dataset.ann_file
        folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
    elif hasattr(dataset, 'image_set_path') and getattr(dataset, 'ann_prefix', None):
        id_list, folder = dataset.image_set_path, dataset.ann_prefix
    else:
        return
    if not os.path.isfile(id_list):
        return
    for image_id in list_from_file(id_list):
        yield os.path.join(folder, f'{image_id}.xml'), id_list


def _problem(file: str, tags: Sequence[str]) -> str:
    """Return what is wrong with an annotation file, '' if nothing is."""
    try:
        root = ET.parse(file).getroot()
    except ET.ParseError as error:
        return f'no XML: {error}'
    except OSError as error:
        return error.strerror or str(error)
    numbers = [('size', f'size/{side}') for side in ('width', 'height')]
    for parent, tag in numbers if root.find('size') is not None else ():
        if not _is_number(root.find(tag)):
            return f'<{parent}> has no number as <{tag.rpartition("/")[2]}>'
    for count, one in enumerate(root.findall('object'), start=1):
        for tag in tags:
            if one.find(tag) is None:
                return f'object {count} has no <{tag.replace("/", "> with <")}>'
            if tag.rpartition('/')[2] in (*SIDES, 'difficult') and not _is_number(one.find(tag)):
                return f'object {count} has {one.find(tag).text!r} as <{tag.rpartition("/")[2]}>'
        if one.find('difficult') is not None and not _is_number(one.find('difficult')):
            return f'object {count} has {one.find("difficult").text!r} as <difficult>'
    return ''


def _is_number(element: ET.Element | None) -> bool:
    try:
        # Python's int takes no infinity, and readers convert to it.
        int(float(element.text))
    except (AttributeError, TypeError, ValueError, OverflowError):
        return False
    return True


def objects_left_out(infos: Sequence[Mapping], classes: Sequence[str]) -> str:
    """Return a remark on objects of classes that are not in the list, which nobody reads.

    mmdet leaves them out without a word. To test on some classes that is right; a name that is
    written otherwise in the files looks the same.

    Args:
        infos (Sequence[Mapping]): Infos of images, some with an 'xml_path'.
        classes (Sequence[str]): The classes of the set.

    Returns:
        str: The remark, '' if there are none.

    Raises:
        ValueError: If no image has an object of the classes, so that there is no P.
    """
    counts: Counter[str] = Counter()
    first = ''
    files = [info for info in infos if os.path.isfile(info.get('xml_path', ''))]
    for info in files:
        names = [one.findtext('name') for one in ET.parse(info['xml_path']).iterfind('object')]
        others = [str(name) for name in names if name not in classes]
        counts.update(others)
        if others and not first:
            first = f'{info["xml_path"]} has {others[0]!r}'
    if not counts:
        return ''
    known = ', '.join(classes)
    if len(files) == len(infos) and not any(info.get('instances') for info in infos):
        raise ValueError(
            f'metainfo.classes={known}: no image has an object of these; {first}: name the '
            f'classes as the annotation files do'
        )
    return (
        f'{sum(counts.values())} objects of {len(counts)} classes that are not among {known} are '
        f'left out; {first}'
    )
