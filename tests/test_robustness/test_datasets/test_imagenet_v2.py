# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')

from mmpretrain.registry import DATASETS

from mmdet_adasap.robustness.benchmark import IMAGENET_V2_FOLDERS
from mmdet_adasap.robustness.datasets import ImageNetV2

PUBLISHED = {
    'matched-frequency': 'imagenetv2-matched-frequency-format-val',
    'threshold-0.7': 'imagenetv2-threshold0.7-format-val',
    'top-images': 'imagenetv2-top-images-format-val',
}
SOME = ['0', '2', '10', '999']


def fill(folder: Path, labels, count: int = 1) -> Path:
    for label in labels:
        (folder / str(label)).mkdir(parents=True)
        for number in range(count):
            (folder / str(label) / f'{number:02d}ab{label}.jpeg').touch()
    return folder


def read(root, **changed) -> list[tuple[str, int]]:
    dataset = ImageNetV2(str(root), **{'images_per_class': 1, 'serialize_data': False, **changed})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [(info['img_id'], info['gt_label']) for info in infos]


class TestImageNetV2:
    def test_labels_are_the_numbers(self, tmp_path):
        fill(tmp_path / PUBLISHED['matched-frequency'], range(1000))
        found = read(tmp_path)
        assert found[:3] == [('0/00ab0.jpeg', 0), ('1/00ab1.jpeg', 1), ('2/00ab2.jpeg', 2)]
        # As text, '10' comes third and 'imagenetv2' readers that sort so give it the label 2.
        assert all(image.startswith(f'{label}/') for image, label in found)
        assert [label for _, label in found] == list(range(1000))

    @pytest.mark.parametrize('variant', PUBLISHED)
    def test_reads_the_folder_or_its_parent(self, tmp_path, variant):
        assert IMAGENET_V2_FOLDERS[variant] == PUBLISHED[variant]
        folder = fill(tmp_path / PUBLISHED[variant], SOME)
        expected = [(f'{label}/00ab{label}.jpeg', int(label)) for label in SOME]
        assert read(tmp_path, variant=variant, subset=SOME[::-1]) == expected
        assert read(folder, variant=variant, subset=SOME) == expected

    def test_takes_a_folder_of_another_name(self, tmp_path):
        folder = fill(tmp_path / 'v2', SOME)
        assert len(read(folder, subset=SOME)) == 4

    @pytest.mark.parametrize('link', [False, True])
    def test_refuses_another_variants_folder(self, tmp_path, link):
        root = fill(tmp_path / PUBLISHED['top-images'], SOME)
        if link:
            (tmp_path / 'v2').symlink_to(root)
            root = tmp_path / 'v2'
        with pytest.raises(ValueError, match=r"is top-images: set variant='top-images'"):
            read(root, subset=SOME)

    def test_names_missing_and_other_folders(self, tmp_path):
        fill(tmp_path / PUBLISHED['matched-frequency'], [*range(5), *range(7, 1000), '007'])
        with pytest.raises(FileNotFoundError) as raised:
            read(tmp_path)
        message = str(raised.value)
        assert 'lacks 2 of 1000 class folders (5, 6)' in message
        assert 'has 1 folders that are no class (007)' in message

    def test_names_partial_folders(self, tmp_path):
        folder = fill(tmp_path / PUBLISHED['matched-frequency'], SOME, count=10)
        assert len(read(tmp_path, subset=SOME, images_per_class=10)) == 40
        next((folder / '10').iterdir()).unlink()
        # Ten is the published number and so the default.
        with pytest.raises(ValueError, match=r'without 10 images \(10: 9\)'):
            ImageNetV2(str(tmp_path), subset=SOME)

    def test_settings_for_a_part_of_the_classes(self):
        assert ImageNetV2.settings_for(range(1000)) == {'subset': None}
        settings = ImageNetV2.settings_for({10, 2}, variant='top-images')
        assert settings == {'subset': ('2', '10'), 'variant': 'top-images'}

    def test_missing(self, tmp_path):
        message = (
            'neither imagenetv2-threshold0.7-format-val/ nor class folders.*0.7.tar.gz is unp'
        )
        with pytest.raises(FileNotFoundError, match=message):
            read(tmp_path, variant='threshold-0.7')

    def test_refuses_a_variant(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"variant='threshold0\.7' is unknown: use one of match"
        ):
            read(tmp_path, variant='threshold0.7')

    def test_builds_from_mmpretrains_registry(self, tmp_path):
        fill(tmp_path / PUBLISHED['matched-frequency'], SOME)
        dataset = DATASETS.build(
            {
                'type': 'ImageNetV2',
                'data_root': str(tmp_path),
                'subset': SOME,
                'images_per_class': None,
            }
        )
        assert len(dataset) == 4
        assert dataset.CLASSES[0].startswith('tench')
        assert 'matched-frequency' in repr(dataset)
