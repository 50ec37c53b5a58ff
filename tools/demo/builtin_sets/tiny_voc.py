# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The built-in VOC as a VOCdevkit tree. What is in it: ``tiny_voc_scenes.py``."""

import io
import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm import tqdm

from mmdet_adasap.fileio import write_atomically
from mmdet_adasap.robustness.datasets.voc_files import check_voc_files

from .made_set import MadeSet, put_set
from .tiny_voc_scenes import SPLITS, TINY_VOC_CLASSES, Scene, draw_scene, plan_scenes

__all__ = ['TINY_VOC_CLASSES', 'build_tiny_voc', 'draw_preview', 'plan_tiny_voc']

MANIFEST = 'tiny_voc.json'
# Counts up whenever the same settings begin to give other bytes.
FORMAT = 1
# A digit is 28/160 of the side at least, so 11 pixels here, little more than its 8 rows.
MIN_SIZE = 64
# Ids have five digits for the number.
MAX_COUNT = 99999


def plan_tiny_voc(
    seed: int = 0, train: int = 200, val: int = 200, test: int = 200, size: int = 160
) -> list[Scene]:
    """Plan what every picture of the set holds, without drawing it.

    Args:
        seed (int): Seed of the set, 0 or more. Defaults to 0.
        train (int): Number of training images. Defaults to 200.
        val (int): Number of validation images. Defaults to 200.
        test (int): Number of test images. Defaults to 200.
        size (int): Side of an image in pixels, 64 or more. Defaults to 160.

    Returns:
        list[Scene]: train, val, test, in this order.

    Raises:
        ValueError: If a number is out of range.
    """
    counts = {'train': train, 'val': val, 'test': test}
    for name, count in counts.items():
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f'{name}={count} must be a number of images from 1 to {MAX_COUNT}')
    if size < MIN_SIZE:
        raise ValueError(f'size={size} must be {MIN_SIZE} pixels or more, or digits become dots')
    if seed < 0:
        raise ValueError(f'seed={seed} must be 0 or more')
    return [
        scene for split, count in counts.items() for scene in plan_scenes(seed, split, count, size)
    ]


def build_tiny_voc(
    out: str | Path,
    seed: int = 0,
    train: int = 200,
    val: int = 200,
    test: int = 200,
    size: int = 160,
    force: bool = False,
) -> bool:
    """Write ``VOCdevkit/VOC2007/`` under a folder, in one piece or not at all.

    The same settings give the same bytes with the pinned versions of numpy and Pillow.

    Args:
        out (str | Path): The folder. It appears only when it is complete.
        seed (int): Seed of the set, 0 or more. Defaults to 0.
        train (int): Number of training images. Defaults to 200.
        val (int): Number of validation images. Defaults to 200.
        test (int): Number of test images. Defaults to 200.
        size (int): Side of an image in pixels, 64 or more. Defaults to 160.
        force (bool): Whether to replace a set with other settings. Defaults to False.

    Returns:
        bool: False if the same set was there already and nothing was done.

    Raises:
        FileExistsError: If the folder holds another set, part of one, or something else.
        FileNotFoundError: If scikit-learn or scikit-image is missing.
        ValueError: If a number is out of range.
    """
    settings = {'seed': seed, 'train': train, 'val': val, 'test': test, 'size': size}
    scenes = plan_tiny_voc(**settings)
    made = MadeSet(
        manifest=MANIFEST,
        version=FORMAT,
        settings=settings,
        write=lambda folder: _write_tree(_year(folder), scenes),
        check=_check_files,
    )
    return put_set(made, Path(out), force)


def _check_files(folder: Path) -> None:
    year = _year(folder)
    for split in SPLITS:
        check_voc_files(str(folder), str(_id_list(year, split)), str(year))


def _year(folder: Path) -> Path:
    return folder / 'VOCdevkit' / 'VOC2007'


def _id_list(year: Path, split: str) -> Path:
    return year / 'ImageSets' / 'Main' / f'{split}.txt'


def _write_tree(year: Path, scenes: list[Scene]) -> None:
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (year / folder).mkdir(parents=True)
    ids: dict[str, list[str]] = {split: [] for split in (*SPLITS, 'trainval')}
    for scene in tqdm(scenes, desc='built-in VOC', unit='image'):
        path = year / 'JPEGImages' / f'{scene.image_id}.jpg'
        draw_scene(scene).save(path, 'JPEG', quality=95, subsampling=0)
        annotation = ET.ElementTree(_annotation(scene))
        ET.indent(annotation)
        annotation.write(year / 'Annotations' / f'{scene.image_id}.xml')
        ids[scene.split].append(scene.image_id)
    ids['trainval'] = ids['train'] + ids['val']
    for split, members in ids.items():
        _id_list(year, split).write_text('\n'.join(members) + '\n')


def _annotation(scene: Scene) -> ET.Element:
    """Describe a scene as VOC does: pixels counted from 1, both ends of a box inside it."""
    root = ET.Element('annotation')
    _add(root, {'folder': 'VOC2007', 'filename': f'{scene.image_id}.jpg'})
    source = {'database': 'built-in VOC', 'annotation': 'VOC2007', 'image': scene.photo}
    _add(ET.SubElement(root, 'source'), source)
    _add(ET.SubElement(root, 'size'), {'width': scene.size, 'height': scene.size, 'depth': 3})
    _add(root, {'segmented': 0})
    for placed in scene.objects:
        node = ET.SubElement(root, 'object')
        name = TINY_VOC_CLASSES[placed.label]
        _add(node, {'name': name, 'pose': 'Unspecified', 'truncated': 0, 'difficult': 0})
        ends = dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), placed.box, strict=True))
        _add(ET.SubElement(node, 'bndbox'), {end: value + 1 for end, value in ends.items()})
    return root


def _add(parent: ET.Element, children: dict[str, str | int]) -> None:
    for tag, text in children.items():
        ET.SubElement(parent, tag).text = str(text)


def draw_preview(
    out: str | Path, target: str | Path, columns: int = 6, rows: int = 2, zoom: int = 2
) -> None:
    """Draw the first images of every split of a set with their boxes, as read from its files.

    Args:
        out (str | Path): Folder of the set.
        target (str | Path): Picture to write.
        columns (int): Images beside one another. Defaults to 6.
        rows (int): Rows for each split. Defaults to 2.
        zoom (int): Enlargement. Defaults to 2.
    """
    year = _year(Path(out))
    tiles = []
    for split in SPLITS:
        ids = _id_list(year, split).read_text().split()[: columns * rows]
        tiles += [_tile(year, image_id, zoom) for image_id in ids]
        tiles += [Image.new('RGB', tiles[0].size)] * (-len(tiles) % columns)
    side = tiles[0].width
    grid = Image.new('RGB', (columns * side, len(tiles) // columns * side))
    for index, tile in enumerate(tiles):
        grid.paste(tile, (index % columns * side, index // columns * side))
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    grid.save(drawn, Image.registered_extensions()[target.suffix.lower()])
    write_atomically(target, drawn.getvalue())


def _tile(year: Path, image_id: str, zoom: int) -> Image.Image:
    with Image.open(year / 'JPEGImages' / f'{image_id}.jpg') as image:
        tile = image.resize((image.width * zoom, image.height * zoom))
    draw = ImageDraw.Draw(tile)
    for node in ET.parse(year / 'Annotations' / f'{image_id}.xml').findall('object'):
        ends = [int(node.findtext(f'bndbox/{end}')) for end in ('xmin', 'ymin', 'xmax', 'ymax')]
        left, top, right, bottom = ((end - 1) * zoom for end in ends)
        draw.rectangle((left, top, right + zoom - 1, bottom + zoom - 1), outline='lime')
        draw.text((left + 2, top), node.findtext('name'), fill='lime')
    return tile
