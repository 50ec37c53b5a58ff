# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Test sets that are wrong in a way that no figure would show, and sets of several parts."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.registry import DefaultScope

import mmdet_adasap  # noqa: F401
from _utils.robustness_case import write_config
from mmdet_adasap.apis import ModelSource, evaluate_robustness
from mmdet_adasap.robustness.run import Progress
from mmdet_adasap.robustness.test_set import build_test_set

CLASSES = (
    *('zero', 'one', 'two', 'three', 'four'),
    *('five', 'six', 'seven', 'eight', 'nine'),
)
LOADING = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
CELLS = dict(corruptions=['brightness'], severities=[5], resamples=0)


@pytest.fixture
def voc(tiny_voc_folder, tmp_path) -> Path:
    """A VOC set of two test images that may be written to."""
    shutil.copytree(tiny_voc_folder / 'VOCdevkit', tmp_path / 'voc')
    return tmp_path / 'voc'


def voc_set(root: Path, kind: str = 'VOCDataset', **changed) -> dict:
    return dict(
        type=kind,
        data_root=f'{root}/',
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
        pipeline=LOADING,
        **changed,
    )


def coco_set(folder: Path, ids=(0, 1), **changed) -> dict:
    folder.mkdir(exist_ok=True)
    listed = [dict(id=i, width=64, height=64, file_name=f'{i}.png') for i in ids]
    everything = dict(images=listed, annotations=[], categories=[dict(id=1, name='zero')])
    (folder / 'all.json').write_text(json.dumps(everything))
    return dict(
        type='CocoDataset',
        data_root=f'{folder}/',
        ann_file='all.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('zero',)),
        test_mode=True,
        pipeline=LOADING,
        **changed,
    )


def concat(*datasets: dict) -> dict:
    return dict(type='ConcatDataset', datasets=list(datasets))


def build(dataset: dict, scope: str = 'mmdet'):
    with DefaultScope.overwrite_default_scope(scope):
        return build_test_set({'a': dict(dataset=dataset)})


def test_ids(voc: Path) -> list[str]:
    return (voc / 'VOC2007/ImageSets/Main/test.txt').read_text().split()


test_ids.__test__ = False


class TestIds:
    def test_of_two_voc_sets(self, voc, tmp_path):
        shutil.copytree(voc, tmp_path / 'other')
        first = test_ids(voc)[0]
        message = rf"voc/VOC2007/.*{first}.jpg and .*other/.*{first}.jpg have the same .*'{first}'"
        with pytest.raises(ValueError, match=rf'a: test_dataloader.dataset: .*{message}'):
            build(concat(voc_set(voc), voc_set(tmp_path / 'other')))

    def test_of_two_coco_sets(self, tmp_path):
        one = coco_set(tmp_path / 'one')
        with pytest.raises(
            ValueError, match=r'one/0.png and .*two/0.png have the same image id 0'
        ):
            build(concat(one, coco_set(tmp_path / 'two')))
        assert build(concat(one, coco_set(tmp_path / 'three', (2, 3)))).ids == [0, 1, 2, 3]

    @pytest.mark.parametrize('how', ['list', 'RepeatDataset'])
    def test_of_an_image_that_is_listed_twice(self, voc, how):
        file = voc / 'VOC2007/ImageSets/Main/test.txt'
        dataset = voc_set(voc)
        if how == 'list':
            file.write_text(file.read_text() + test_ids(voc)[0] + '\n')
        else:
            dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
        with pytest.raises(ValueError, match=r'image .*\.jpg is in it twice: list it once'):
            build(dataset)

    def test_that_are_paths_are_made_unique(self, tmp_path):
        """Files of one name in classes of one name, in two sets of mmpretrain."""
        pytest.importorskip('mmpretrain')
        parts = []
        for name in ('x', 'y'):
            for label in ('cat', 'dog'):
                (tmp_path / name / label).mkdir(parents=True)
                cv2.imwrite(
                    str(tmp_path / name / label / '0.png'), np.zeros((40, 40, 3), np.uint8)
                )
            parts.append(
                dict(
                    type='CustomDataset',
                    data_root=str(tmp_path / name),
                    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
                )
            )
        found = build(concat(*parts), 'mmpretrain')
        assert found.ids == ['x/cat/0.png', 'x/dog/0.png', 'y/cat/0.png', 'y/dog/0.png']
        # Those of a set alone are what they were, and so are its pixels.
        assert build(parts[0], 'mmpretrain').ids == ['cat/0.png', 'dog/0.png']


def test_parts_of_other_classes(tmp_path):
    other = coco_set(tmp_path / 'two', (2, 3))
    other['metainfo'] = dict(classes=('zero', 'one'))
    with pytest.raises(ValueError, match='datasets: its parts have other classes, and no metric'):
        build(concat(coco_set(tmp_path / 'one'), other))


class TestAnnotations:
    @pytest.mark.parametrize('kind', ['VOCDataset', 'CorruptedVOCDataset'])
    @pytest.mark.parametrize(
        ('old', 'new', 'problem'),
        [
            ('</object>', '', 'no XML: '),
            ('bndbox', 'box', 'object 1 has no <bndbox>'),
            ('name>', 'title>', 'object 1 has no <name>'),
            ('ymax', 'bottom', 'object 1 has no <bndbox> with <ymax>'),
            ('<xmin>', '<xmin>x', "object 1 has 'x"),
            ('<difficult>', '<difficult>no', "object 1 has 'no"),
            ('<width>', '<width>px', '<size> has no number as <width>'),
        ],
    )
    def test_damaged(self, voc, kind, old, new, problem):
        file = voc / f'VOC2007/Annotations/{test_ids(voc)[1]}.xml'
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=rf'{file} is no annotation of VOC \({problem}') as e:
            build(concat(voc_set(voc, kind)))
        assert '\n' not in str(e.value)

    def test_damaged_of_a_classifier(self, voc):
        pytest.importorskip('mmpretrain')
        file = voc / f'VOC2007/Annotations/{test_ids(voc)[1]}.xml'
        file.write_text(file.read_text().replace('difficult', 'hard'))
        loading = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        dataset = dict(type='VOC', data_root=f'{voc}/VOC2007', split='test', pipeline=loading)
        dataset['metainfo'] = dict(classes=CLASSES)
        with pytest.raises(ValueError, match=rf'{file} is no .*object 1 has no <difficult>'):
            build(dict(dataset, test_mode=True), 'mmpretrain')

    @pytest.mark.parametrize('text', ['{"images": [', '{"images": [{"id": 1}]}', '[]'])
    def test_damaged_of_coco(self, tmp_path, text):
        dataset = coco_set(tmp_path / 'one')
        file = tmp_path / 'one' / 'all.json'
        file.write_text(text)
        message = rf'a: test_dataloader.dataset: .*, where {file} is read as annotations of CocoD'
        with pytest.raises(ValueError, match=message):
            build(dataset)

    def test_damaged_list_of_a_classifier(self, tmp_path):
        pytest.importorskip('mmpretrain')
        (tmp_path / 'ann.txt').write_text('a.png 0\nb.png\n')
        loading = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        dataset = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=loading)
        with pytest.raises(
            ValueError, match=r'not enough values .*ann\.txt is read as annotations of Cus'
        ):
            build(dict(dataset, ann_file='ann.txt'), 'mmpretrain')

    def test_class_that_is_not_in_the_list(self, voc):
        file = voc / f'VOC2007/Annotations/{test_ids(voc)[1]}.xml'
        assert build(voc_set(voc)).remark == ''
        text = file.read_text()
        name = text.partition('<name>')[2].partition('<')[0]
        file.write_text(text.replace(f'<name>{name}<', '<name>Zero<'))
        remark = build(voc_set(voc)).remark
        assert f"are left out; {file} has 'Zero'" in remark
        assert 'of 1 classes that are not among zero, one' in remark

    def test_no_class_is_in_the_list(self, voc):
        dataset = voc_set(voc)
        dataset['metainfo'] = dict(classes=('cat', 'dog'))
        with pytest.raises(
            ValueError, match=r"metainfo.classes=cat, dog: no image has .*\.xml has '\w+': name"
        ):
            build(dataset)


def test_image_with_another_ending(voc):
    image = voc / f'VOC2007/JPEGImages/{test_ids(voc)[0]}.jpg'
    image.rename(image.with_suffix('.png'))
    with pytest.raises(FileNotFoundError) as error:
        build(voc_set(voc, 'CorruptedVOCDataset'))
    assert f'{image.name}, but {image.stem}.png is there: call it {image.name}' in str(error.value)


def source(folder: Path, data: Path, more: str = '', blur: float = 3.0) -> ModelSource:
    from _utils.seeing_detector import SeeingDetector

    write_config(folder / 'config.py', data, more)
    text = (folder / 'config.py').read_text().replace(f'{data}/VOCdevkit/', f'{data}/')
    (folder / 'config.py').write_text(text)
    torch.save(dict(state_dict=SeeingDetector(blur).state_dict()), folder / 'a.pth')
    return ModelSource('a', str(folder / 'config.py'), str(folder / 'a.pth'))


def test_a_model_that_finds_nothing_is_named(voc, tmp_path):
    said = []
    blind = source(tmp_path, voc, blur=1e4)
    for _ in range(2):  # and when the run goes on
        said.clear()
        results = evaluate_robustness(
            [blind], tmp_path / 'out', progress=Progress(say=said.append), **CELLS
        )
        assert results['models']['a']['clean'] == 0
        (line,) = [line for line in said if line.startswith('a: pascal_voc/mAP is 0 on clean')]
        assert 'classes and data_preprocessor' in line


@pytest.mark.long
def test_one_of_the_datasets_of_an_evaluator(voc, tmp_path):
    """Its figure is that of a config which has no other dataset."""
    parts = """
one = dict(_base_.test_dataloader.dataset, data_root={data!r})
two = dict(one, ann_file='VOC2007/ImageSets/Main/val.txt')
test_dataloader = dict(
    batch_size=4, dataset=dict(_delete_=True, type='ConcatDataset', datasets=[one, two])
)
test_evaluator = dict(
    _delete_=True,
    type='MultiDatasetsEvaluator',
    metrics=[dict(type='VOCMetric'), dict(type='VOCMetric', eval_mode='area')],
    dataset_prefixes=['test', 'val'],
)
""".format(data=f'{voc}/')
    alone = """
test_dataloader['dataset']['ann_file'] = 'VOC2007/ImageSets/Main/val.txt'
test_evaluator = dict(_delete_=True, type='VOCMetric', eval_mode='area')
"""
    found = {}
    for name, more, metric in (
        ('parts', parts, 'val/pascal_voc/mAP'),
        ('alone', alone, None),
    ):
        (tmp_path / name).mkdir()
        results = evaluate_robustness(
            [source(tmp_path / name, voc, more)], tmp_path / name / 'out', metric=metric, **CELLS
        )
        found[name] = results['models']['a']['cells'], results['models']['a']['clean']
        assert results['protocol']['metric'] == 'pascal_voc/mAP'
        assert results['protocol']['dataset']['images'] == 3
    assert found['parts'] == found['alone']
    with pytest.raises(ValueError, match='a metric for each of test, val, and P is of one'):
        evaluate_robustness([source(tmp_path, voc, parts)], tmp_path / 'out', **CELLS)


def test_classifier_of_grey_images(tmp_path):
    """Its images are corrupted as any others, and it is told them as it is used to."""
    pytest.importorskip('mmpretrain')
    from _utils.seeing_classifier import SIDES, SeeingClassifier

    rng = np.random.default_rng(0)
    for label, side in enumerate(SIDES):
        (tmp_path / 'images' / f'{label}_{side}').mkdir(parents=True)
        for number in range(2):
            file = tmp_path / 'images' / f'{label}_{side}' / f'{number}.png'
            image = rng.integers(60, 140, (40, 40), np.uint8)
            image[:, :20] += np.uint8(20 * (label == 0))
            cv2.imwrite(str(file), image)
    (tmp_path / 'config.py').write_text(f"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmdet_adasap', '_utils.seeing_classifier'])
model = dict(type='SeeingClassifier')
data_preprocessor = dict(type='ClsDataPreprocessor', mean=[100.0], std=[50.0])
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type='CustomDataset',
        data_root={str(tmp_path / 'images')!r},
        pipeline=[
            dict(type='LoadImageFromFile', color_type='grayscale'),
            dict(type='CenterCrop', crop_size=36),
            dict(type='PackInputs'),
        ],
    ),
)
test_evaluator = dict(type='Accuracy')
""")
    torch.save(dict(state_dict=SeeingClassifier().state_dict()), tmp_path / 'a.pth')
    grey = ModelSource('a', str(tmp_path / 'config.py'), str(tmp_path / 'a.pth'))
    cells = dict(corruptions=['gaussian_noise', 'frost'], severities=[1, 5], resamples=0)
    results = evaluate_robustness([grey], tmp_path / 'out', **cells)
    model = results['models']['a']
    assert model['clean'] >= 0.25
    assert model['mPC'] is not None
    assert not results['unreadable']
    pictures = sorted((tmp_path / 'out' / 'examples').glob('*.jpg'))
    assert len(pictures) == 6 * 5
    assert all(cv2.imread(str(file)).shape == (36, 36, 3) for file in pictures)
