# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import hashlib
import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from builtin_sets.tiny_imagenet import (
    MANIFEST,
    TINY_IMAGENET_CLASSES,
    build_tiny_imagenet,
    plan_tiny_imagenet,
)
from builtin_sets.tiny_voc_scenes import PHOTOS, SPLITS, draw_scene, load_digits, photo_zone

SETTINGS = {'seed': 3, 'train': 3, 'val': 1, 'test': 2, 'size': 40}


def hashes(folder) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def tiny_imagenet(tmp_path_factory):
    """Folder of a small set; not to be written to."""
    out = tmp_path_factory.mktemp('data') / 'tiny_imagenet'
    assert build_tiny_imagenet(out, **SETTINGS)
    return out


@pytest.fixture(scope='module')
def scenes():
    return list(plan_tiny_imagenet(0, 30, 10, 20))


class TestBuild:
    def test_tree(self, tiny_imagenet):
        assert TINY_IMAGENET_CLASSES[0] == '0_zero'
        for split in SPLITS:
            folders = sorted(path.name for path in (tiny_imagenet / split).iterdir())
            # mmpretrain's labels are places in the sorted folders.
            assert folders == list(TINY_IMAGENET_CLASSES)
            for folder in folders:
                images = sorted((tiny_imagenet / split / folder).iterdir())
                assert len(images) == SETTINGS[split]
                with Image.open(images[0]) as image:
                    assert (image.size, image.mode) == ((40, 40), 'RGB')
        names = [path.name for path in tiny_imagenet.rglob('*.png')]
        assert len(set(names)) == len(names) == 60
        manifest = json.loads((tiny_imagenet / MANIFEST).read_text())
        assert manifest['settings'] == SETTINGS

    def test_files_hold_the_planned_scenes(self, tiny_imagenet):
        for scene in list(plan_tiny_imagenet(**SETTINGS))[::7]:
            with Image.open(tiny_imagenet / f'{scene.image_id}.png') as image:
                assert np.array_equal(np.array(image), np.array(draw_scene(scene)))

    def test_same_seed_gives_same_bytes(self, tiny_imagenet, tmp_path):
        build_tiny_imagenet(tmp_path / 'again', **SETTINGS)
        assert hashes(tmp_path / 'again') == hashes(tiny_imagenet)
        assert [path.name for path in tmp_path.iterdir()] == ['again']

    def test_other_seed_gives_other_images(self):
        one, other = (
            list(plan_tiny_imagenet(**{**SETTINGS, 'seed': seed, 'train': 1, 'test': 1}))
            for seed in (3, 4)
        )
        assert [scene.image_id for scene in one] == [scene.image_id for scene in other]
        assert all(a != b for a, b in zip(one, other, strict=True))

    def test_more_images_leave_the_first_as_they_are(self):
        few = plan_tiny_imagenet(**SETTINGS)
        more = {s.image_id: s for s in plan_tiny_imagenet(**{**SETTINGS, 'train': 5, 'val': 2})}
        assert all(more[scene.image_id] == scene for scene in few)

    def test_nothing_to_do_the_second_time(self, tiny_imagenet):
        before = hashes(tiny_imagenet)
        assert not build_tiny_imagenet(tiny_imagenet, **SETTINGS)
        assert hashes(tiny_imagenet) == before

    def test_missing_files_are_noticed_and_made_anew(self, tmp_path):
        small = {**SETTINGS, 'train': 1, 'val': 1, 'test': 1}
        build_tiny_imagenet(tmp_path / 'set', **small)
        before = hashes(tmp_path / 'set')
        next((tmp_path / 'set' / 'test' / '9_nine').iterdir()).unlink()
        with pytest.raises(FileExistsError, match=r'missing files.*--force'):
            build_tiny_imagenet(tmp_path / 'set', **small)
        assert build_tiny_imagenet(tmp_path / 'set', **small, force=True)
        assert hashes(tmp_path / 'set') == before

    def test_other_sets_are_not_overwritten(self, tiny_imagenet, tmp_path):
        before = hashes(tiny_imagenet)
        with pytest.raises(FileExistsError, match=r'size 40 instead of 48.*--force'):
            build_tiny_imagenet(tiny_imagenet, **{**SETTINGS, 'size': 48})
        assert hashes(tiny_imagenet) == before
        (tmp_path / 'train' / 'n01440764').mkdir(parents=True)
        (tmp_path / 'train' / 'n01440764' / 'a.JPEG').write_text('mine')
        with pytest.raises(FileExistsError, match='not made by this tool'):
            build_tiny_imagenet(tmp_path, **SETTINGS, force=True)
        assert (tmp_path / 'train' / 'n01440764' / 'a.JPEG').read_text() == 'mine'

    def test_nothing_is_left_when_it_fails(self, tmp_path, monkeypatch):
        drawn = []

        def fail(scene):
            if len(drawn) == 5:
                raise OSError('disk full')
            drawn.append(scene)
            return draw_scene(scene)

        monkeypatch.setattr('builtin_sets.tiny_imagenet.draw_scene', fail)
        with pytest.raises(OSError, match='disk full'):
            build_tiny_imagenet(tmp_path / 'set', **SETTINGS)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ('changed', 'message'),
        [
            ({'train': 0}, 'train=0 must be a number of images of each class from 1'),
            ({'test': 10000}, 'test=10000 must be'),
            ({'size': 31}, 'size=31 must be 32'),
            ({'seed': -1}, 'seed=-1 must be 0 or more'),
        ],
    )
    def test_bad_numbers_are_refused(self, tmp_path, changed, message):
        with pytest.raises(ValueError, match=message):
            build_tiny_imagenet(tmp_path / 'set', **{**SETTINGS, **changed})
        assert list(tmp_path.iterdir()) == []

    def test_command_line(self, tiny_imagenet, run_tool):
        numbers = [f'--{name}={value}' for name, value in SETTINGS.items()]
        arguments = ('demo/make_tiny_imagenet.py', '--out', tiny_imagenet, *numbers)
        code, out, _ = run_tool(*arguments)
        assert code is None
        assert 'already there with these settings' in out
        code, _, _ = run_tool(*arguments, '--size=20')
        assert code.startswith('make_tiny_imagenet: size=20 must be 32')
        code, out, _ = run_tool('demo/make_tiny_imagenet.py', '--help')
        assert code == 0
        assert 'share neither digits nor regions' in ' '.join(out.split())


class TestPlan:
    def test_splits_share_no_digit(self, scenes):
        used = {
            split: {scene.objects[0].digit for scene in scenes if scene.split == split}
            for split in SPLITS
        }
        for one, other in combinations(SPLITS, 2):
            assert len(used[one]) > 30
            assert not used[one] & used[other]

    def test_splits_share_no_photograph_region(self, scenes):
        assert {scene.photo for scene in scenes} == set(PHOTOS)
        cut = {}
        for scene in scenes:
            left, top, right, bottom = scene.crop
            zone = photo_zone(scene.photo, scene.split)
            assert zone[0] <= left < right <= zone[2]
            assert zone[1] <= top < bottom <= zone[3]
            cut.setdefault(scene.photo, {}).setdefault(scene.split, []).append(scene.crop)
        for crops in cut.values():
            for one, other in combinations(crops, 2):
                for a in crops[one]:
                    for b in crops[other]:
                        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                        assert apart

    def test_the_folder_is_the_digit(self, scenes):
        labels = load_digits()[1]
        for scene in scenes:
            (placed,) = scene.objects
            split, folder, _ = scene.image_id.split('/')
            assert split == scene.split
            assert TINY_IMAGENET_CLASSES[labels[placed.digit]] == folder

    def test_digits_are_inside_and_varied(self, scenes):
        boxes = np.array([scene.objects[0].box for scene in scenes])
        assert boxes.min() >= 0
        assert boxes.max() < 48
        heights = boxes[:, 3] - boxes[:, 1] + 1
        assert heights.min() < 38
        assert heights.max() > 43
        assert (boxes[:, :2].std(0) > 1.5).all()

    def test_digits_are_seen(self, scenes):
        for scene in scenes[::20]:
            drawn = np.array(draw_scene(scene)).astype(int)
            empty = np.array(draw_scene(replace(scene, objects=())))
            assert np.abs(drawn - empty).max() > 30
