# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re

import pytest

from mmdet_adasap.robustness.datasets.class_folders import find_images, imagenet_wnids, read_names

NAMES = ('n02', 'n04', 'n05')


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        for number in (2, 1):
            (tmp_path / name / f'{name}_{number}.JPEG').touch()
    return tmp_path


class TestWnids:
    def test_is_the_order_of_the_labels(self):
        wnids = imagenet_wnids()
        assert len(set(wnids)) == 1000
        assert list(wnids) == sorted(wnids)
        # tench, Egyptian cat, volcano and toilet tissue.
        known = {'n01440764': 0, 'n02124075': 285, 'n09472597': 980, 'n15075141': 999}
        assert {wnid: wnids.index(wnid) for wnid in known} == known


class TestFindImages:
    def test_lists_labels_and_ids(self, folder):
        found = find_images(folder, NAMES, per_class=2)
        assert [(image['img_id'], image['gt_label']) for image in found] == [
            ('n02/n02_1.JPEG', 0),
            ('n02/n02_2.JPEG', 0),
            ('n04/n04_1.JPEG', 1),
            ('n04/n04_2.JPEG', 1),
            ('n05/n05_1.JPEG', 2),
            ('n05/n05_2.JPEG', 2),
        ]
        assert all(image['img_path'] == f'{folder}/{image["img_id"]}' for image in found)

    def test_labels_follow_the_list_and_not_the_alphabet(self, folder):
        found = find_images(folder, NAMES[::-1])
        assert {image['img_id'][:3]: image['gt_label'] for image in found} == {
            'n05': 0,
            'n04': 1,
            'n02': 2,
        }

    def test_a_subset_keeps_its_labels(self, folder):
        (folder / 'n02' / 'n02_1.JPEG').unlink()
        found = find_images(folder, NAMES, 2, subset=('n05', 'n04'))
        assert [image['gt_label'] for image in found] == [1, 1, 2, 2]

    def test_foreign_files_are_no_images(self, folder):
        for name in ('.DS_Store', 'n04/._n04_1.JPEG', 'n04/Thumbs.db', 'README.txt', '.git'):
            (folder / name).touch()
        assert len(find_images(folder, NAMES, 2)) == 6

    def test_names_missing_folders_and_the_way_out(self, folder):
        with pytest.raises(FileNotFoundError) as raised:
            find_images(folder, ('n01', 'n02', 'n03', 'n04', 'n05'))
        message = str(raised.value)
        assert 'lacks 2 of 5 class folders (n01, n03): unpack it anew' in message
        assert 'subset=[...]' in message

    @pytest.mark.parametrize(
        ('remove', 'per_class', 'message'),
        [
            ((1,), 2, 'has 1 class folders without 2 images (n04: 1): unpack it anew'),
            ((1, 2), None, 'has 1 class folders without any image (n04: 0)'),
            ((), 3, 'has 3 class folders without 3 images (n02: 2, n04: 2, n05: 2)'),
            ((), 1, 'has 3 class folders without 1 images (n02: 2, n04: 2, n05: 2)'),
        ],
    )
    def test_names_partial_folders(self, folder, remove, per_class, message):
        for number in remove:
            (folder / 'n04' / f'n04_{number}.JPEG').unlink()
        with pytest.raises(ValueError, match=re.escape(message)) as raised:
            find_images(folder, NAMES, per_class)
        assert ('images_per_class=None' in str(raised.value)) == (per_class is not None)

    def test_names_other_folders(self, folder):
        (folder / 'n99').mkdir()
        with pytest.raises(ValueError, match=r'1 folders that are no class \(n99\).*take away'):
            find_images(folder, NAMES)

    def test_refuses_a_subset_of_other_classes(self, folder):
        with pytest.raises(ValueError, match='subset names n98, of which there is no class'):
            find_images(folder, NAMES, subset=('n98', 'n02'))


class TestReadNames:
    def test_file(self, tmp_path):
        (tmp_path / 'names.txt').write_text('n02\nn04\n\n')
        assert read_names('subset', str(tmp_path / 'names.txt')) == ('n02', 'n04')

    @pytest.mark.parametrize(
        ('names', 'error', 'message'),
        [
            ('there/is/none.txt', FileNotFoundError, 'is not a file: give a list'),
            ([], ValueError, r'subset=\[\] names no class folder'),
            (['n1', 'n2', 'n1'], ValueError, 'subset names n1 twice'),
            ([1, 2], TypeError, 'must be a list of class folders, each a str'),
            (3, TypeError, 'subset=3 must be a list'),
        ],
    )
    def test_refuses(self, names, error, message):
        with pytest.raises(error, match=message):
            read_names('subset', names)

    def test_refuses_a_file_that_is_no_text(self, tmp_path):
        (tmp_path / 'image.png').write_bytes(b'\x89PNG\xff\xfe')
        with pytest.raises(ValueError, match='not a text file'):
            read_names('subset', tmp_path / 'image.png')
