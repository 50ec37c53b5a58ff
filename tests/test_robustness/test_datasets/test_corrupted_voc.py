# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import hashlib
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmdet.datasets import VOCDataset
from mmdet.evaluation import VOCMetric
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from builtin_sets.tiny_voc import TINY_VOC_CLASSES, plan_tiny_voc
from mmdet_adasap.robustness.corruptions.corrupt import CORRUPTIONS, corrupt, corruption_seed
from mmdet_adasap.robustness.datasets import (
    CorruptedVOCDataset,
    ImageCorruption,
    check_voc_dataset,
)

LOADING = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True}]
PACKED = [*LOADING, {'type': 'mmdet.PackDetInputs', 'meta_keys': ('img_id',)}]


def config(tiny_voc_folder, split: str = 'val', **changed) -> dict:
    return {
        'data_root': f'{tiny_voc_folder}/VOCdevkit/',
        'ann_file': f'VOC2007/ImageSets/Main/{split}.txt',
        'data_prefix': {'sub_data_root': 'VOC2007/'},
        'metainfo': {'classes': TINY_VOC_CLASSES},
        'pipeline': LOADING,
        'test_mode': True,
        **changed,
    }


class TestPlainVOCDataset:
    @pytest.mark.parametrize('split', ['train', 'val', 'test'])
    def test_reads_the_built_in_set_as_planned(self, tiny_voc_folder, tiny_voc_settings, split):
        dataset = VOCDataset(**config(tiny_voc_folder, split))
        scenes = [scene for scene in plan_tiny_voc(**tiny_voc_settings) if scene.split == split]
        assert len(dataset) == len(scenes)
        for index, scene in enumerate(scenes):
            info = dataset.get_data_info(index)
            assert info['img_id'] == scene.image_id
            assert (info['height'], info['width']) == (scene.size, scene.size)
            # First and last pixel, counted from 0: VOCDataset takes off VOC's 1.
            assert [tuple(one['bbox']) for one in info['instances']] == [
                placed.box for placed in scene.objects
            ]
            assert [one['bbox_label'] for one in info['instances']] == [
                placed.label for placed in scene.objects
            ]
            assert all(one['ignore_flag'] == 0 for one in info['instances'])
            assert dataset[index]['img'].shape == (scene.size, scene.size, 3)


class TestCorruptedVOCDataset:
    def test_corrupts_what_was_loaded_keyed_by_id(self, tiny_voc_folder):
        clean = CorruptedVOCDataset(**config(tiny_voc_folder))
        noisy = CorruptedVOCDataset(
            corruption='gaussian_noise', severity=3, seed=5, **config(tiny_voc_folder)
        )
        plain = VOCDataset(**config(tiny_voc_folder))
        for index in range(len(plain)):
            rgb = plain[index]['img'][..., ::-1]
            key = corruption_seed(5, plain[index]['img_id'], 'gaussian_noise', 3)
            expected = corrupt(rgb, 'gaussian_noise', 3, key)
            assert np.array_equal(clean[index]['img'], plain[index]['img'])
            assert np.array_equal(noisy[index]['img'][..., ::-1], expected)
            assert np.array_equal(noisy[index]['gt_bboxes'], plain[index]['gt_bboxes'])

    @pytest.mark.long
    @pytest.mark.parametrize('corruption', ['fog', 'frost', 'shot_noise', 'glass_blur'])
    def test_order_workers_and_batches_change_nothing(self, tiny_voc_folder, corruption):
        dataset = CorruptedVOCDataset(
            corruption=corruption, severity=4, **config(tiny_voc_folder, 'train', pipeline=PACKED)
        )

        def images(num_workers: int, order: list[int], batch_size: int) -> dict:
            loader = DataLoader(
                dataset,
                batch_size,
                sampler=order,
                num_workers=num_workers,
                collate_fn=pseudo_collate,
            )
            return {
                sample.img_id: image
                for batch in loader
                for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
            }

        first = images(0, [0, 1, 2, 3], 1)
        assert len(first) == 4
        for settings in (
            *((0, [2, 0, 3, 1], 3), (1, [0, 1, 2, 3], 3), (2, [3, 1, 0, 2], 1)),
            *((4, [3, 1, 0, 2], 3), (0, [2], 1)),
        ):
            for image_id, image in images(*settings).items():
                assert (image == first[image_id]).all()

    def test_another_process_gives_the_same(self, tiny_voc_folder):
        """Its own hash seed, threads and caches, and what it has corrupted before."""
        path = tiny_voc_folder / 'VOCdevkit' / 'VOC2007' / 'JPEGImages' / '100001.jpg'
        code = f"""
import hashlib, cv2
from mmdet_adasap.robustness.corruptions import CORRUPTIONS, corrupt, corruption_seed
cv2.setNumThreads(3)
image = cv2.cvtColor(cv2.imread({str(path)!r}), cv2.COLOR_BGR2RGB)
for name in reversed(CORRUPTIONS):
    corrupted = corrupt(image, name, 3, corruption_seed(2, '100001', name, 3))
    print(name, hashlib.sha256(corrupted.tobytes()).hexdigest())
"""
        printed = subprocess.run(
            [sys.executable, '-c', code], check=True, capture_output=True, text=True
        ).stdout
        hashes = dict(line.split() for line in printed.splitlines())
        assert list(hashes) == list(reversed(CORRUPTIONS))
        clean = CorruptedVOCDataset(**config(tiny_voc_folder, 'train'))[1]
        for name, expected in hashes.items():
            image = ImageCorruption(name, 3, seed=2)(dict(clean))['img'][..., ::-1]
            assert hashlib.sha256(image.tobytes()).hexdigest() == expected

    @pytest.mark.parametrize('content', [b'', b'no image', 'cut off'])
    def test_names_an_unreadable_image(self, tiny_voc_folder, tmp_path, content):
        shutil.copytree(tiny_voc_folder, tmp_path / 'set')
        broken = tmp_path / 'set' / 'VOCdevkit' / 'VOC2007' / 'JPEGImages' / '100002.jpg'
        broken.write_bytes(broken.read_bytes()[:-99] if content == 'cut off' else content)
        dataset = CorruptedVOCDataset('fog', **config(tmp_path / 'set', 'train'))
        assert dataset[1]['img'].any()
        with pytest.raises(OSError, match=r'100002\.jpg is no readable image.*train\.txt'):
            dataset[2]

    @pytest.mark.parametrize('loader', ['LoadImageFromFile', 'mmdet.LoadImageFromFile'])
    def test_step_stands_behind_loading(self, tiny_voc_folder, loader):
        pipeline = [{'type': loader}, *LOADING[1:]]
        dataset = CorruptedVOCDataset(
            corruption='fog', **config(tiny_voc_folder, pipeline=pipeline)
        )
        names = [type(step).__name__ for step in dataset.pipeline.transforms]
        assert names == ['LoadImageFromFile', 'ImageCorruption', 'LoadAnnotations']
        assert pipeline == [{'type': loader}, *LOADING[1:]]

    def test_builds_from_mmdets_registry(self, tiny_voc_folder):
        dataset = DATASETS.build(
            {'type': 'CorruptedVOCDataset', 'corruption': 'contrast', **config(tiny_voc_folder)}
        )
        assert len(dataset) == 3

    @pytest.mark.parametrize(
        ('changed', 'error', 'message'),
        [
            ({'pipeline': LOADING[1:]}, ValueError, 'no step that loads the image'),
            ({'pipeline': []}, ValueError, 'no step that loads the image'),
            ({'corruption': 'fogg'}, ValueError, "did you mean 'fog'"),
            ({'severity': 9}, ValueError, 'severity=9'),
        ],
    )
    def test_refuses_arguments(self, tiny_voc_folder, changed, error, message):
        with pytest.raises(error, match=message):
            CorruptedVOCDataset(**{'corruption': 'fog', **config(tiny_voc_folder), **changed})


class TestVOCMetric:
    @staticmethod
    def printed(dataset) -> str:
        """What VOCMetric prints for detections that equal the ground truth."""
        results = []
        for index in range(len(dataset)):
            instances = dataset.get_data_info(index)['instances']
            boxes = np.array([one['bbox'] for one in instances], np.float32).reshape(-1, 4)
            labels = np.array([one['bbox_label'] for one in instances], int)
            scored = np.hstack([boxes, np.ones((len(boxes), 1), np.float32)])
            annotation = {
                'bboxes': boxes,
                'labels': labels,
                'bboxes_ignore': np.zeros((0, 4), np.float32),
                'labels_ignore': np.zeros(0, int),
            }
            results.append((annotation, [scored[labels == label] for label in range(10)]))
        metric = VOCMetric(metric='mAP', eval_mode='11points')
        metric.dataset_meta = dataset.metainfo
        lines = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        logger = MMLogger.get_current_instance()
        logger.addHandler(handler)
        try:
            assert metric.compute_metrics(results)['mAP'] == pytest.approx(1)
        finally:
            logger.removeHandler(handler)
        return '\n'.join(lines)

    def test_prints_our_names(self, tiny_voc_folder):
        text = self.printed(CorruptedVOCDataset(**config(tiny_voc_folder)))
        assert 'aeroplane' not in text
        assert all(name in text for name in TINY_VOC_CLASSES)

    def test_plain_dataset_prints_vocs(self, tiny_voc_folder):
        # The reason for ours; when this fails, mmdet has mended it.
        assert 'aeroplane' in self.printed(VOCDataset(**config(tiny_voc_folder)))

    def test_vocs_own_classes_keep_the_type(self, tiny_voc_folder):
        given = config(tiny_voc_folder)
        del given['metainfo']
        assert CorruptedVOCDataset(**given).metainfo['dataset_type'] == 'VOC2007'


class TestMissingFiles:
    @pytest.fixture
    def broken(self, tiny_voc_folder, tmp_path):
        shutil.copytree(tiny_voc_folder, tmp_path / 'set')
        return tmp_path / 'set'

    @pytest.mark.parametrize('test_mode', [True, False])
    def test_root(self, tmp_path, test_mode):
        given = config(tmp_path / 'nowhere', test_mode=test_mode)
        with pytest.raises(FileNotFoundError, match=r'data_root=.*nowhere.*make_tiny_voc\.py'):
            CorruptedVOCDataset(**given)

    def test_list_of_images(self, tiny_voc_folder):
        with pytest.raises(FileNotFoundError, match=r'nix\.txt.*only test\.txt, train\.txt'):
            CorruptedVOCDataset(**config(tiny_voc_folder, 'nix'))

    @pytest.mark.parametrize('corruption', ['none', 'fog'])
    def test_images(self, broken, corruption):
        for name in ('100000', '100002'):
            (broken / 'VOCdevkit' / 'VOC2007' / 'JPEGImages' / f'{name}.jpg').unlink()
        message = r'JPEGImages.* lacks 2 of the 4 images .*100000\.jpg, 100002\.jpg\).*data_root'
        with pytest.raises(FileNotFoundError, match=message):
            CorruptedVOCDataset(corruption=corruption, **config(broken, 'train', test_mode=False))
        CorruptedVOCDataset(**config(broken, 'val'))

    def test_annotations(self, broken):
        shutil.rmtree(broken / 'VOCdevkit' / 'VOC2007' / 'Annotations')
        with pytest.raises(FileNotFoundError, match=r'Annotations.* lacks 3 of the 3'):
            CorruptedVOCDataset(**config(broken))

    def test_check_looks_into_wrappers(self, broken):
        inner = {'type': 'mmdet.VOCDataset', **config(broken, 'train', test_mode=False)}
        dataset = DATASETS.build(
            {
                'type': 'RepeatDataset',
                'times': 2,
                'dataset': {
                    'type': 'ConcatDataset',
                    'ignore_keys': ['dataset_type'],
                    'datasets': [inner, inner],
                },
            }
        )
        check_voc_dataset(dataset)
        (broken / 'VOCdevkit' / 'VOC2007' / 'JPEGImages' / '100001.jpg').unlink()
        with pytest.raises(FileNotFoundError, match=r'lacks 1 of the 4 images .*100001\.jpg'):
            check_voc_dataset(dataset)

    def test_relative_data_root(self, tiny_voc_folder, monkeypatch):
        monkeypatch.chdir(tiny_voc_folder)
        given = config(tiny_voc_folder, data_root='VOCdevkit/')
        assert len(CorruptedVOCDataset(**given)) == 3
