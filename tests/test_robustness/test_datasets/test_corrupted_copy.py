# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""tools/corrupt_voc.py and what it calls."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet')

from builtin_sets.tiny_voc import TINY_VOC_CLASSES
from mmdet_adasap.robustness.datasets import CorruptedVOCDataset, corrupted_copy


@pytest.fixture
def call(run_tool, tiny_voc_folder, tmp_path):
    """Runs the tool on the training images of the small set; changes override its options."""

    def call(**changed) -> tuple[object, str, str]:
        options = {
            'data-root': tiny_voc_folder / 'VOCdevkit',
            'out': tmp_path / 'copy',
            'split': 'train',
            'corruptions': 'fog',
            'severities': '3',
            'workers': 1,
            **{name.replace('_', '-'): value for name, value in changed.items()},
        }
        arguments = []
        for name, value in options.items():
            arguments += [f'--{name}', *str(value).split()]
        return run_tool('corrupt_voc.py', *arguments)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def dataset(data_root, corruption: str = 'none', severity: int = 1, **changed):
    return CorruptedVOCDataset(
        corruption,
        severity,
        data_root=f'{data_root}/',
        ann_file='VOC2007/ImageSets/Main/train.txt',
        data_prefix={'sub_data_root': 'VOC2007/'},
        metainfo={'classes': TINY_VOC_CLASSES},
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True}],
        test_mode=True,
        **changed,
    )


def die(*job) -> None:
    os._exit(9)


class TestCorruptVOC:
    @pytest.mark.long
    @pytest.mark.parametrize('mode', ['fast', 'exact'])
    def test_copy_is_read_as_the_dataset_computes_it(self, call, tiny_voc_folder, tmp_path, mode):
        code, out, _ = call(corruptions='fog glass_blur', severities='2 5', mode=mode)
        assert code is None
        assert '4 conditions of VOC2007 train' in out
        for corruption in ('fog', 'glass_blur'):
            computed = dataset(tiny_voc_folder / 'VOCdevkit', corruption, 5, mode=mode)
            stored = dataset(tmp_path / 'copy', img_subdir=f'JPEGImages/{corruption}/5')
            assert len(stored) == len(computed) == 4
            for index in range(4):
                assert np.array_equal(stored[index]['img'], computed[index]['img'])
                assert np.array_equal(stored[index]['gt_bboxes'], computed[index]['gt_bboxes'])

    def test_manifest(self, call, tmp_path):
        call(corruptions='fog', severities='1 4', seed=3)
        copy = tmp_path / 'copy'
        manifest = json.loads((copy / 'corrupted_voc.json').read_text())
        assert manifest['settings']['seed'] == 3
        assert manifest['versions']['opencv'] == cv2.__version__
        images = {name for name in contents(copy) if 'JPEGImages' in name}
        assert len(images) == 8
        assert manifest['sha256'] == {
            name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in images
        }

    def test_processes_and_quality(self, call, tmp_path):
        call(quality=50)
        call(quality=50, workers=3, out=tmp_path / 'other')
        assert contents(tmp_path / 'copy') == contents(tmp_path / 'other')
        image = next((tmp_path / 'copy').glob('VOC2007/JPEGImages/fog/3/*.jpg'))
        assert image.read_bytes()[:2] == b'\xff\xd8'
        call(quality=95, out=tmp_path / 'fine')
        fine = tmp_path / 'fine' / image.relative_to(tmp_path / 'copy')
        assert fine.stat().st_size > 1.5 * image.stat().st_size

    def test_goes_on_with_what_is_missing(self, call, tmp_path, monkeypatch):
        call(severities='2 3')
        copy = tmp_path / 'copy'
        complete = contents(copy)
        gone = sorted(copy.glob('VOC2007/JPEGImages/fog/*/*.jpg'))[::3]
        for path in gone:
            path.unlink()
        (gone[0].parent / '.x.0123abcd.mmdet_adasap-partial').write_bytes(b'left')
        written = []
        real = corrupted_copy.write_atomically
        monkeypatch.setattr(
            corrupted_copy,
            'write_atomically',
            lambda path, *rest: (written.append(Path(path)), real(path, *rest)),
        )
        assert call(severities='2 3')[0] is None
        assert sorted(written[:-1]) == gone
        assert contents(copy) == complete

    def test_killed_and_called_again(self, call, tiny_voc_folder, tmp_path):
        call(out=tmp_path / 'whole', corruptions='zoom_blur', severities='1 2 3 4 5')
        out = tmp_path / 'killed'
        settings = corrupted_copy.CopySettings(('zoom_blur',), (1, 2, 3, 4, 5), split='train')
        process = multiprocessing.get_context('fork').Process(
            target=corrupted_copy.write_corrupted_voc,
            args=(tiny_voc_folder / 'VOCdevkit', out, settings),
        )
        process.start()
        while process.is_alive() and len(list(out.glob('*/JPEGImages/*/*/*.jpg'))) < 3:
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert call(out=out, corruptions='zoom_blur', severities='1 2 3 4 5')[0] is None
        assert contents(out) == contents(tmp_path / 'whole')

    def test_unreadable_images_are_named_and_the_others_written(
        self, call, tiny_voc_folder, tmp_path
    ):
        shutil.copytree(tiny_voc_folder / 'VOCdevkit', tmp_path / 'broken')
        images = tmp_path / 'broken' / 'VOC2007' / 'JPEGImages'
        whole = (images / '100001.jpg').read_bytes()
        (images / '100001.jpg').write_bytes(b'no image')
        (images / '100002.jpg').write_bytes(whole[:-2])
        cv2.imwrite(str(images / '100003.jpg'), np.zeros((20, 40, 3), np.uint8))
        code, _, err = call(data_root=tmp_path / 'broken')
        assert code.startswith('corrupt_voc: 3 of the images could not be corrupted')
        assert '100001.jpg is no readable image' in err
        assert '100002.jpg is no readable image' in err
        assert '100003.jpg: the image is 40 x 20 pixels' in err
        manifest = tmp_path / 'copy' / 'corrupted_voc.json'
        assert 'sha256' not in json.loads(manifest.read_text())
        assert len(list((tmp_path / 'copy').glob('*/JPEGImages/fog/3/*.jpg'))) == 1
        for name in ('100001.jpg', '100002.jpg', '100003.jpg'):
            (images / name).write_bytes(whole)
        assert call(data_root=tmp_path / 'broken')[0] is None
        assert len(json.loads(manifest.read_text())['sha256']) == 4

    @pytest.mark.parametrize(
        ('changed', 'message'),
        [
            ({'corruptions': 'fgo'}, "'fgo' is unknown; did you mean 'fog'"),
            ({'severities': '0'}, 'severity=0 must be from 1'),
            ({'severities': '3 6'}, 'severity=6 must be from 1'),
            ({'severities': '3 3'}, 'each once'),
            ({'quality': 0}, 'quality=0 must be from 1 to 100'),
            ({'workers': 0}, 'workers=0 must be 1 or more'),
            ({'split': 'nix'}, r'nix.txt'),
            ({'year': 'VOC2012'}, r'VOC2012'),
            ({'data_root': '/nowhere'}, "data_root='/nowhere' is not a folder"),
        ],
    )
    def test_refuses(self, call, tmp_path, changed, message):
        code = call(**changed)[0]
        assert code.startswith('corrupt_voc: ')
        assert message in code
        assert not (tmp_path / 'copy').exists()

    def test_empty_list(self, call, tiny_voc_folder, tmp_path):
        shutil.copytree(tiny_voc_folder / 'VOCdevkit', tmp_path / 'empty')
        (tmp_path / 'empty/VOC2007/ImageSets/Main/train.txt').write_text('\n')
        assert 'lists no images' in call(data_root=tmp_path / 'empty')[0]

    def test_folder_of_something_else(self, call, tiny_voc_folder, tmp_path, monkeypatch):
        call()
        assert 'seed 0 instead of 1' in call(seed=1)[0]
        monkeypatch.setattr(cv2, '__version__', '5.0.0')
        assert 'instead of 5.0.0' in call()[0]
        (tmp_path / 'other').mkdir()
        (tmp_path / 'other' / 'file').touch()
        assert 'was not made by this tool' in call(out=tmp_path / 'other')[0]
        assert 'is the set itself' in call(out=tiny_voc_folder / 'VOCdevkit')[0]

    def test_full_disk(self, call, monkeypatch):
        def full(path, *rest):
            if str(path).endswith('.jpg'):
                raise OSError(errno.ENOSPC, f'{path} is not written (No space left on device)')

        monkeypatch.setattr(corrupted_copy, 'write_atomically', full)
        assert 'No space left on device' in call()[0]

    def test_killed_worker(self, call, monkeypatch):
        monkeypatch.setattr(corrupted_copy, '_write_image', die)
        assert 'a worker process was killed' in call(workers=2)[0]
