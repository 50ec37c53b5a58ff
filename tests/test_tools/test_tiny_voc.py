# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import hashlib
import json
import runpy
import shutil
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builtin_sets.tiny_voc import (
    MANIFEST,
    TINY_VOC_CLASSES,
    build_tiny_voc,
    draw_preview,
    plan_tiny_voc,
)
from builtin_sets.tiny_voc_scenes import (
    PHOTOS,
    SPLITS,
    digit_pools,
    draw_scene,
    load_digits,
    load_photo,
    photo_zone,
)

TOOL = Path(__file__).parents[2] / 'tools' / 'demo' / 'make_tiny_voc.py'


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


class TestBuild:
    def test_same_seed_gives_same_bytes(self, tiny_voc, settings, tmp_path):
        assert build_tiny_voc(tmp_path / 'again', **settings)
        assert hashes(tmp_path / 'again') == hashes(tiny_voc)
        assert sorted(path.name for path in tmp_path.iterdir()) == ['again']

    def test_other_seed_gives_other_images(self, tiny_voc, settings, tmp_path):
        build_tiny_voc(tmp_path / 'other', **{**settings, 'seed': 4})
        one, other = hashes(tiny_voc), hashes(tmp_path / 'other')
        assert one.keys() == other.keys()
        assert all(one[name] != other[name] for name in one if name.endswith('.jpg'))

    def test_more_images_leave_the_first_as_they_are(self, tiny_voc, settings, tmp_path):
        build_tiny_voc(tmp_path / 'more', **{**settings, 'train': 6, 'val': 4})
        few, more = hashes(tiny_voc), hashes(tmp_path / 'more')
        images = [name for name in few if name.endswith(('.jpg', '.xml'))]
        assert len(images) == 2 * 9
        assert all(few[name] == more[name] for name in images)

    def test_tree(self, tiny_voc, settings):
        year = tiny_voc / 'VOCdevkit' / 'VOC2007'
        ids = {
            name: (year / 'ImageSets' / 'Main' / f'{name}.txt').read_text().split()
            for name in (*SPLITS, 'trainval')
        }
        assert [len(ids[split]) for split in SPLITS] == [4, 3, 2]
        assert ids['trainval'] == ids['train'] + ids['val']
        for split in SPLITS:
            for image_id in ids[split]:
                assert (year / 'Annotations' / f'{image_id}.xml').is_file()
                with Image.open(year / 'JPEGImages' / f'{image_id}.jpg') as image:
                    assert image.size == (96, 96)
        manifest = json.loads((tiny_voc / MANIFEST).read_text())
        assert manifest['settings'] == settings
        assert 'pillow' in manifest['versions']

    def test_nothing_to_do_the_second_time(self, tiny_voc, settings):
        before = hashes(tiny_voc)
        assert not build_tiny_voc(tiny_voc, **settings)
        assert hashes(tiny_voc) == before

    def test_other_settings_are_refused_without_force(self, tiny_voc, settings, tmp_path):
        out = tmp_path / 'set'
        shutil.copytree(tiny_voc, out)
        other = {**settings, 'train': 5}
        with pytest.raises(FileExistsError, match=r'train 4 instead of 5.*--force'):
            build_tiny_voc(out, **other)
        assert hashes(out) == hashes(tiny_voc)
        assert build_tiny_voc(out, **other, force=True)
        assert not build_tiny_voc(out, **other)

    def test_missing_files_are_noticed(self, tiny_voc, settings, tmp_path):
        out = tmp_path / 'set'
        shutil.copytree(tiny_voc, out)
        next((out / 'VOCdevkit' / 'VOC2007' / 'JPEGImages').iterdir()).unlink()
        with pytest.raises(FileExistsError, match=r'missing files.*--force'):
            build_tiny_voc(out, **settings)

    def test_foreign_folder_is_never_replaced(self, settings, tmp_path):
        (tmp_path / 'thesis.txt').write_text('dear')
        with pytest.raises(FileExistsError, match='not made by this tool'):
            build_tiny_voc(tmp_path, **settings, force=True)
        assert (tmp_path / 'thesis.txt').read_text() == 'dear'

    def test_nothing_is_left_when_it_fails(self, settings, tmp_path, monkeypatch):
        def fail(scene):
            raise RuntimeError('disk full')

        monkeypatch.setattr('builtin_sets.tiny_voc.draw_scene', fail)
        with pytest.raises(RuntimeError, match='disk full'):
            build_tiny_voc(tmp_path / 'set', **settings)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ('changed', 'message'),
        [
            ({'train': 0}, 'train=0 must be a number of images from 1'),
            ({'val': -1}, 'val=-1 must be'),
            ({'test': 100000}, 'test=100000 must be'),
            ({'size': 63}, 'size=63 must be 64'),
            ({'seed': -1}, 'seed=-1 must be 0 or more'),
        ],
    )
    def test_bad_numbers_are_refused(self, settings, tmp_path, changed, message):
        with pytest.raises(ValueError, match=message):
            build_tiny_voc(tmp_path / 'set', **{**settings, **changed})
        assert list(tmp_path.iterdir()) == []

    def test_missing_package_says_what_to_install(self, settings, tmp_path, monkeypatch):
        load_photo.cache_clear()
        monkeypatch.setattr('builtin_sets.tiny_voc_scenes.find_spec', lambda name: None)
        with pytest.raises(FileNotFoundError, match=r'scikit-image is not installed.*pip install'):
            build_tiny_voc(tmp_path / 'set', **settings)

    def test_command_line(self, tiny_voc, settings, tmp_path, monkeypatch, capsys):
        numbers = [f'--{name}={value}' for name, value in settings.items()]
        preview = tmp_path / 'preview.png'
        command = ['make_tiny_voc.py', '--out', str(tiny_voc), *numbers, '--preview', str(preview)]
        monkeypatch.setattr(sys, 'argv', command)
        runpy.run_path(str(TOOL), run_name='__main__')
        assert 'already there' in capsys.readouterr().out
        assert preview.is_file()

        monkeypatch.setattr(sys, 'argv', [*command, '--size', '20'])
        with pytest.raises(SystemExit, match='make_tiny_voc: size=20 must be 64'):
            runpy.run_path(str(TOOL), run_name='__main__')

    def test_preview_shows_every_split(self, tiny_voc, tmp_path):
        draw_preview(tiny_voc, tmp_path / 'preview.png', columns=3, rows=1, zoom=2)
        with Image.open(tmp_path / 'preview.png') as picture:
            assert picture.size == (3 * 192, 3 * 192)


@pytest.fixture(scope='module')
def scenes():
    return plan_tiny_voc(0, 60, 40, 40)


class TestPlan:
    def test_splits_share_no_digit(self, scenes):
        used = {split: set() for split in SPLITS}
        for scene in scenes:
            used[scene.split] |= {placed.digit for placed in scene.objects}
        for one, other in combinations(SPLITS, 2):
            assert used[one]
            assert not used[one] & used[other]

    def test_every_digit_is_dealt_once_and_evenly(self):
        pools = digit_pools(5)
        labels = load_digits()[1]
        dealt = [digit for split in SPLITS for pool in pools[split] for digit in pool]
        assert sorted(dealt) == list(range(1797))
        for split, share in (('train', 0.6), ('val', 0.2), ('test', 0.2)):
            for label, pool in enumerate(pools[split]):
                assert (labels[pool] == label).all()
                assert len(pool) / (labels == label).sum() == pytest.approx(share, abs=0.01)

    def test_splits_share_no_photograph_region(self, scenes):
        for name in PHOTOS:
            width, height = load_photo(name).size
            owner = np.zeros((height, width), int)
            for number, split in enumerate(SPLITS, start=1):
                left, top, right, bottom = photo_zone(name, split)
                assert (owner[top:bottom, left:right] == 0).all()
                owner[top:bottom, left:right] = number
        assert {scene.photo for scene in scenes} == set(PHOTOS)
        for scene in scenes:
            left, top, right, bottom = scene.crop
            zone = photo_zone(scene.photo, scene.split)
            assert zone[0] <= left < right <= zone[2]
            assert zone[1] <= top < bottom <= zone[3]

    def test_objects_are_inside_varied_and_hardly_overlap(self, scenes):
        heights = []
        for scene in scenes:
            assert 1 <= len(scene.objects) <= 5
            for placed in scene.objects:
                left, top, right, bottom = placed.box
                assert 0 <= left < right < scene.size
                assert 0 <= top < bottom < scene.size
                heights.append(bottom - top + 1)
            cover = np.zeros((scene.size, scene.size), int)
            for placed in scene.objects:
                left, top, right, bottom = placed.box
                cover[top : bottom + 1, left : right + 1] += 1
            assert (cover > 1).mean() < 0.03
        assert np.mean([len(scene.objects) for scene in scenes]) > 2.5
        assert min(heights) < 34
        assert max(heights) > 64
        labels = [placed.label for scene in scenes for placed in scene.objects]
        assert (np.bincount(labels, minlength=10) > 0.05 * len(labels)).all()

    def test_boxes_hold_the_digit_and_nothing_else(self, scenes):
        for scene in scenes[:20]:
            empty = type(scene)(**{**vars(scene), 'objects': ()})
            drawn = np.array(draw_scene(scene)).astype(int) != np.array(draw_scene(empty))
            changed = drawn.any(-1)
            outside = changed.copy()
            for placed in scene.objects:
                left, top, right, bottom = placed.box
                inside = changed[top : bottom + 1, left : right + 1]
                # Tight: each edge of the box is touched.
                assert all(edge.any() for edge in (*inside[[0, -1]], *inside.T[[0, -1]]))
                outside[top : bottom + 1, left : right + 1] = False
            assert not outside.any()

    def test_ids_are_sorted_and_unique(self, scenes):
        ids = [scene.image_id for scene in scenes]
        assert all(one < other for one, other in pairwise(ids))

    def test_classes_are_words(self):
        assert TINY_VOC_CLASSES[0] == 'zero'
        assert TINY_VOC_CLASSES[9] == 'nine'
        assert len(set(TINY_VOC_CLASSES)) == 10
