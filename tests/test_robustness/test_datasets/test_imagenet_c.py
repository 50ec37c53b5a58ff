# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmpretrain')

from mmpretrain.registry import DATASETS

from mmdet_adasap.robustness.corruptions.corrupt import CORRUPTIONS
from mmdet_adasap.robustness.datasets import ImageNetC
from mmdet_adasap.robustness.datasets.class_folders import imagenet_wnids

WNIDS = ['n01440764', 'n02124075', 'n15075141']


def fill(folder: Path, wnids=WNIDS, count: int = 2) -> Path:
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)
        for number in range(count):
            (folder / wnid / f'ILSVRC2012_val_{number:08d}.JPEG').touch()
    return folder


def read(root, corruption='gaussian_noise', severity=3, **changed) -> list[tuple[str, int]]:
    settings = {'subset': WNIDS, 'images_per_class': 2, 'serialize_data': False, **changed}
    dataset = ImageNetC(str(root), corruption, severity, **settings)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [(info['img_id'], info['gt_label'], info['img_path']) for info in infos]


@pytest.mark.parametrize(
    ('kind', 'name'), [('ImageNetC', 'ImageNet-C'), ('CIFAR10C', 'CIFAR-10-C')]
)
def test_corruption_that_this_package_alone_has(tmp_path, monkeypatch, kind, name):
    """As one that is added to it: no archive lacks it."""
    monkeypatch.setitem(CORRUPTIONS, 'haze', CORRUPTIONS['fog'])
    module = sys.modules['mmdet_adasap.robustness.corruptions.corrupt']
    monkeypatch.setattr(module, 'EXTRAS', (*module.EXTRAS, 'haze'))
    dataset = dict(type=kind, data_root=str(tmp_path), corruption='haze', severity=3)
    message = f"corruption='haze' is not in {name}, which has gaussian_noise, .*: compute it"
    with pytest.raises(ValueError, match=message):
        DATASETS.build(dataset)


class TestImageNetC:
    @pytest.mark.parametrize(
        ('corruption', 'place'),
        [
            ('gaussian_noise', 'gaussian_noise/3'),
            ('gaussian_noise', 'noise/gaussian_noise/3'),
            ('zoom_blur', 'blur/zoom_blur/3'),
            ('frost', 'weather/frost/3'),
            ('pixelate', 'digital/pixelate/3'),
            ('saturate', 'extra/saturate/3'),
        ],
    )
    def test_finds_both_layouts(self, tmp_path, corruption, place):
        folder = fill(tmp_path / place)
        found = read(tmp_path, corruption)
        # Labels of tench, Egyptian cat and toilet tissue, though three folders are there.
        assert [label for _, label, _ in found] == [0, 0, 285, 285, 999, 999]
        assert found[1] == (
            'n01440764/ILSVRC2012_val_00000001.JPEG',
            0,
            f'{folder}/n01440764/ILSVRC2012_val_00000001.JPEG',
        )

    def test_says_which_folder_it_reads(self, tmp_path, monkeypatch):
        folder = fill(tmp_path / 'weather' / 'fog' / '1')
        said = []
        monkeypatch.setattr(
            'mmdet_adasap.robustness.datasets.imagenet_c.print_log',
            lambda text, *_: said.append(text),
        )
        read(tmp_path, 'fog', 1)
        assert said == [f'ImageNetC: 6 images from {folder}']

    def test_needs_all_thousand_classes(self, tmp_path):
        wnids = imagenet_wnids()
        folder = fill(tmp_path / 'fog' / '1', wnids[:-2], count=1)
        with pytest.raises(FileNotFoundError) as raised:
            read(tmp_path, 'fog', 1, subset=None, images_per_class=1)
        assert 'lacks 2 of 1000 class folders (n13133613, n15075141)' in str(raised.value)
        fill(folder, wnids[-2:], count=1)
        found = read(tmp_path, 'fog', 1, subset=None, images_per_class=1)
        assert [label for _, label, _ in found] == list(range(1000))

    def test_published_number_of_images_is_the_default(self, tmp_path):
        fill(tmp_path / 'fog' / '1', WNIDS[:1], count=49)
        with pytest.raises(ValueError, match=r'without 50 images \(n01440764: 49\)'):
            ImageNetC(str(tmp_path), 'fog', 1, subset=WNIDS[:1])

    def test_settings_for_a_part_of_the_classes(self, tmp_path):
        wnids = imagenet_wnids()
        assert ImageNetC.settings_for(range(1000), subset=None)['subset'] is None
        settings = ImageNetC.settings_for({0, 999, 1000}, data_root=str(tmp_path))
        assert settings['subset'] == (wnids[0], wnids[999])
        fill(tmp_path / 'fog' / '1', [wnids[0], wnids[999]], count=2)
        dataset = ImageNetC(corruption='fog', severity=1, **settings)
        assert [dataset.get_data_info(i)['gt_label'] for i in range(4)] == [0, 0, 999, 999]
        own = ImageNetC.settings_for({1}, wnids=['a', 'b'], images_per_class=3)
        assert own == {'subset': ('b',), 'wnids': ['a', 'b'], 'images_per_class': 3}

    def test_does_not_tell_to_name_a_subset_that_is_named(self, tmp_path):
        fill(tmp_path / 'fog' / '1', WNIDS[:1], count=2)
        with pytest.raises(FileNotFoundError) as raised:
            read(tmp_path, 'fog', 1, subset=WNIDS[:2], images_per_class=2)
        assert 'lacks 1 of 2 class folders' in str(raised.value)
        assert 'subset=' not in str(raised.value)

    def test_empty_class_folder(self, tmp_path):
        (fill(tmp_path / 'fog' / '1', WNIDS[:2]) / WNIDS[2]).mkdir()
        with pytest.raises(ValueError, match=r'without any image \(n15075141: 0\)'):
            read(tmp_path, 'fog', 1, images_per_class=None)

    def test_missing_severity(self, tmp_path):
        fill(tmp_path / 'blur' / 'zoom_blur' / '1')
        fill(tmp_path / 'blur' / 'zoom_blur' / '2')
        message = r"zoom_blur' has no folder for severity=3 \(only 1, 2\): unpack blur\.tar anew"
        with pytest.raises(FileNotFoundError, match=message):
            read(tmp_path, 'zoom_blur')

    def test_missing_corruption(self, tmp_path):
        fill(tmp_path / 'noise' / 'shot_noise' / '3')
        with pytest.raises(FileNotFoundError, match=r'neither fog/ nor weather/fog/ \(only noise'):
            read(tmp_path, 'fog')

    def test_missing_root(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='is not a folder: set it to where ImageNet-C'):
            read(tmp_path / 'none')

    def test_refuses_to_choose_between_both_layouts(self, tmp_path):
        fill(tmp_path / 'fog' / '3')
        fill(tmp_path / 'weather' / 'fog' / '3')
        with pytest.raises(ValueError, match='both fog/ and weather/fog/: move one of them away'):
            read(tmp_path, 'fog')

    @pytest.mark.parametrize(
        ('corruption', 'severity', 'message'),
        [
            ('none', 1, "not in ImageNet-C: for clean images use dict(type='ImageNet'"),
            ('fogg', 1, "did you mean 'fog'"),
            ('fog', 0, 'severity=0 must be from 1'),
        ],
    )
    def test_refuses_conditions(self, tmp_path, corruption, severity, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(tmp_path, corruption, severity)

    def test_other_classes(self, tmp_path):
        fill(tmp_path / 'fog' / '1', ['b', 'c', 'a'])
        (tmp_path / 'classes.txt').write_text('c\na\nb\n')
        dataset = ImageNetC(
            str(tmp_path),
            'fog',
            1,
            wnids=str(tmp_path / 'classes.txt'),
            images_per_class=None,
        )
        assert dataset.metainfo['classes'] == ('c', 'a', 'b')
        assert {
            dataset.get_data_info(index)['img_id'][0]: dataset.get_data_info(index)['gt_label']
            for index in range(6)
        } == {'c': 0, 'a': 1, 'b': 2}

    def test_runs_in_mmpretrains_test_pipeline(self, tmp_path):
        folder = tmp_path / 'fog' / '1' / WNIDS[2]
        folder.mkdir(parents=True)
        pixels = np.arange(224 * 224 * 3).reshape(224, 224, 3).astype(np.uint8)
        Image.fromarray(pixels).save(folder / 'a.png')
        dataset = DATASETS.build(
            {
                'type': 'ImageNetC',
                'data_root': str(tmp_path),
                'corruption': 'fog',
                'severity': 1,
                'subset': WNIDS[2:],
                'images_per_class': 1,
                'test_mode': True,
                'pipeline': [
                    {'type': 'LoadImageFromFile'},
                    {'type': 'CenterCrop', 'crop_size': 224},
                    {'type': 'PackInputs'},
                ],
            }
        )
        sample = dataset[0]
        assert np.array_equal(sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1], pixels)
        assert sample['data_samples'].gt_label.tolist() == [999]
        assert len(dataset.CLASSES) == 1000

    def test_every_corruption_has_its_archive(self, tmp_path):
        for name in CORRUPTIONS:
            with pytest.raises(FileNotFoundError, match=rf'unpack \w+\.tar there.*{name}|{name}'):
                read(tmp_path, name)
