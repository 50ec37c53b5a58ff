# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Classifiers tested side by side: top-1 accuracy in place of mAP, and ImageNet's references."""

import base64
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from _utils.environments import ROOT, python, without
from _utils.report_case import read_page, section
from _utils.seeing_classifier import SIDES
from mmdet_adasap.apis import ModelSource, evaluate_robustness
from mmdet_adasap.errors import LoadingFailedError, ProtocolMismatchError, UnreadableImagesError
from mmdet_adasap.robustness.corruptions import BENCHMARK
from mmdet_adasap.robustness.datasets import ImageCorruption
from mmdet_adasap.robustness.datasets.multi_view import Condition
from mmdet_adasap.robustness.datasets.published import PublishedImages
from mmdet_adasap.robustness.metrics import build_adapter
from mmdet_adasap.robustness.metrics.accuracy import Top1
from mmdet_adasap.robustness.metrics.mpc import ALEXNET, alexnet, summarize
from mmdet_adasap.robustness.report import compare, write_report
from mmdet_adasap.robustness.run import JPEG
from mmdet_adasap.robustness.test_set import build_test_set

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmdet_adasap', '_utils.seeing_classifier'])
model = dict(type='SeeingClassifier')
data_preprocessor = dict(type='ClsDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3, to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=48, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=40),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='CustomDataset', data_root={data!r}, pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='Accuracy', topk=(1, 3))
test_cfg = dict()
"""
CELLS = dict(corruptions=['fog', 'gaussian_noise'], severities=[2, 5])


def write_images(folder: Path, count: int, seed: int) -> None:
    """In a folder for each side images that are a little brighter there."""
    rng = np.random.default_rng(seed)
    for label, side in enumerate(SIDES):
        (folder / f'{label}_{side}').mkdir(parents=True)
        for number in range(count):
            image = rng.integers(60, 140, (50, 60, 3)) + 0.0
            part = {
                'left': np.s_[:, :30],
                'right': np.s_[:, 30:],
                'top': np.s_[:25],
                'bottom': np.s_[25:],
            }[side]
            image[part] += rng.uniform(1, 8)
            cv2.imwrite(
                str(folder / f'{label}_{side}' / f'{number}.png'), image.round().astype(np.uint8)
            )


@pytest.fixture(scope='module')
def case(tmp_path_factory) -> Path:
    from _utils.seeing_classifier import SeeingClassifier

    folder = tmp_path_factory.mktemp('classifiers')
    write_images(folder / 'images', 6, 0)
    write_images(folder / 'others', 4, 1)
    (folder / 'config.py').write_text(CONFIG.format(data=str(folder / 'images')))
    for name, noise in (('sharp', 0.0), ('dull', 0.1)):
        torch.save(dict(state_dict=SeeingClassifier(noise).state_dict()), folder / f'{name}.pth')
    return folder


def sources(case: Path, config: str = 'config.py') -> list[ModelSource]:
    return [ModelSource(n, str(case / config), str(case / f'{n}.pth')) for n in ('sharp', 'dull')]


@pytest.fixture(scope='module')
def whole(case) -> tuple[Path, dict]:
    shifts = {'others': dict(type='CustomDataset', data_root=str(case / 'others'))}
    out = case / 'whole'
    return out, evaluate_robustness(sources(case), out, shifted_sets=shifts, **CELLS)


VIEWS = """dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [dict(type='PackInputs')],
        ],
    ),"""


def test_test_time_augmentation(case):
    """As test.py --tta leaves a config in its work_dir."""
    model = "dict(type='SeeingClassifier')"
    text = (case / 'config.py').read_text().replace("dict(type='PackInputs'),", VIEWS)
    text = text.replace(model, f"dict(type='AverageClsScoreTTA', module={model})")
    (case / 'tta.py').write_text(text)
    cells = dict(corruptions=['fog'], severities=[2], resamples=10)
    found = evaluate_robustness(sources(case, 'tta.py')[1:], case / 'tta', **cells)
    plain = evaluate_robustness(sources(case)[1:], case / 'plain', **cells)
    config = Config.fromfile(case / 'tta.py')
    config.update(work_dir=str(case / 'tta_runner'), load_from=str(case / 'dull.pth'))
    expected = Runner.from_cfg(config).test()['accuracy/top1'] / 100
    models = [each['models']['dull'] for each in (found, plain)]
    assert models[0]['clean'] == pytest.approx(expected, abs=1e-6)  # of float32 there
    assert models[0]['clean'] != models[1]['clean']
    assert models[0]['cost']['flops'] == models[1]['cost']['flops']
    assert models[0]['cost']['params'] == models[1]['cost']['params']


def measured(case: Path, corruption: str, severity: int, data: str = 'images') -> float:
    """What mmpretrain's own Runner measures, corrupting behind the crop; a fraction."""
    config = Config.fromfile(case / 'config.py')
    dataset = config.test_dataloader.dataset
    dataset.data_root = str(case / data)
    step = dict(type='ImageCorruption', corruption=corruption, severity=severity)
    dataset.pipeline.insert(3, dict(step, data_root=str(case / data)))
    config.update(work_dir=str(case / 'runner'), load_from=str(case / 'dull.pth'))
    config.update(log_level='ERROR', experiment_name=f'{data}{corruption}{severity}')
    return Runner.from_cfg(config).test()['accuracy/top1'] / 100


def imagenet(case: Path, folder: Path) -> ModelSource:
    """The images of the case as some of ImageNet's, and a model of 1000 classes."""
    from _utils.seeing_classifier import SeeingClassifier

    names = sorted((case / 'images').rglob('*.png'))
    lines = [f'{p.relative_to(case / "images")} {p.parent.name[0]}\n' for p in names]
    (folder / 'val.txt').write_text(''.join(lines))
    text = CONFIG.format(data=str(case / 'images')).replace('CustomDataset', 'ImageNet')
    text = text.replace("type='ImageNet',", f"type='ImageNet', ann_file='{folder}/val.txt',")
    text = text.replace("'SeeingClassifier'", "'SeeingClassifier', num_classes=1000")
    (folder / 'config.py').write_text(text)
    torch.save(dict(state_dict=SeeingClassifier(0.1).state_dict()), folder / 'a.pth')
    return ModelSource('a', str(folder / 'config.py'), str(folder / 'a.pth'))


class TestFigures:
    def test_are_what_mmpretrain_computes(self, case, whole):
        dull = whole[1]['models']['dull']
        for corruption, severity in (('none', 1), ('fog', 2), ('gaussian_noise', 5)):
            expected = measured(case, corruption, severity)
            clean = corruption == 'none'
            found = dull['clean'] if clean else dull['cells'][corruption][str(severity)]
            assert 0.1 < expected < 0.99
            assert found == pytest.approx(expected, abs=1e-6)

    def test_another_set(self, case, whole):
        found = whole[1]['models']['dull']['shifts']['others']
        assert found['P'] == pytest.approx(measured(case, 'none', 1, 'others'), abs=1e-6)
        assert found['R'] == pytest.approx(found['P'] / whole[1]['models']['dull']['clean'])
        assert found['ci95']['R'][0] < found['R'] < found['ci95']['R'][1]
        assert whole[1]['protocol']['shifts']['others']['images'] == 16
        sharp = whole[1]['models']['sharp']['shifts']['others']
        assert sharp['difference'] is None
        for key in ('P', 'R'):
            difference = found['difference'][key]
            assert difference['value'] == pytest.approx(found[key] - sharp[key])
            assert difference['ci95'][0] < difference['value'] < difference['ci95'][1]

    def test_intervals_are_of_a_share(self, whole):
        dull = whole[1]['models']['dull']
        p = dull['clean']
        low, high = dull['ci95']['clean']
        # 24 images: the standard error of a share, from 1000 resamples.
        expected = 1.96 * (p * (1 - p) / 24) ** 0.5
        assert high - p == pytest.approx(expected, rel=0.1) or high == 1
        assert p - low == pytest.approx(expected, rel=0.1)

    def test_per_class(self, whole):
        dull = whole[1]['models']['dull']
        shares = [row['clean'] for row in dull['per_class'].values()]
        assert list(dull['per_class']) == [f'{i}_{side}' for i, side in enumerate(SIDES)]
        assert np.mean(shares) == pytest.approx(dull['clean'])

    def test_the_first_model_is_the_reference(self, whole):
        assert whole[1]['mCE_reference'] == 'sharp'
        assert whole[1]['models']['sharp']['mCE'] == 100

    def test_two_classes_of_one_name_stay_apart(self):
        """As the bird and the machine in ImageNet, both 'crane'."""
        classes = ('crane', 'other', 'crane')
        adapter = build_adapter(dict(type='mmpretrain.Accuracy'), dict(classes=classes))
        scored = adapter.score([Top1(0, True), Top1(2, False), Top1(2, True)], None)
        assert scored.per_class == {'crane (0)': 1.0, 'other': None, 'crane (2)': 0.5}

    @pytest.mark.long
    def test_goes_on(self, case, whole, tmp_path):
        """A run that lacks its last cell and another set ends with the same figures."""
        out = tmp_path / 'out'
        shifts = {'others': dict(type='CustomDataset', data_root=str(case / 'others'))}
        evaluate_robustness(sources(case), out, shifted_sets=shifts, **CELLS)
        for name in ('others-0', 'fog-5'):
            (out / 'cells' / f'{name}.json').unlink()
        again = evaluate_robustness(sources(case), out, shifted_sets=shifts, **CELLS)
        for name, model in again['models'].items():
            for key in ('clean', 'cells', 'shifts', 'mPC', 'ci95'):
                assert model[key] == whole[1]['models'][name][key]

    def test_report(self, whole, tmp_path):
        page = write_report(whole[0]).read_text()
        assert 'clean top-1' in page
        assert 'mAP' not in page
        assert 'others / clean top-1' in page
        rows = (whole[0] / 'report.csv').read_text()
        assert f',others,fraction,{whole[1]["models"]["dull"]["shifts"]["others"]["R"]!r},' in rows
        out = whole[0].parent / 'again'
        if not (out / 'results.json').exists():
            out.mkdir()
            for part in ('results.json', 'cells'):
                (out / part).symlink_to(whole[0] / part)
        assert 'top-1' in compare([whole[0], out], tmp_path).read_text()

    def test_examples_are_shown_as_models_saw_them(self, case, whole, tmp_path):
        """Cropped, then corrupted; with the class that each model gave them, and the true one."""
        page = read_page(write_report(whole[0]))
        scenes = section(page, 'worst').all('svg', 'scene')
        assert len(scenes) == 2 * 2 * 2  # models, corruptions, clean and corrupted
        stored = {one.attributes['id']: one for one in page.all('image')}
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            config = Config.fromfile(case / 'config.py')
            images = build_test_set({'a': config.test_dataloader}).images
            for name, one in stored.items():
                data = base64.b64decode(one.attributes['href'].split(',')[1])
                (file,) = [f for f in whole[0].glob('examples/*') if f.read_bytes() == data]
                number, corruption, severity, view = file.stem.split('-')
                assert view == '0'
                assert name.startswith('example-')
                expected = images.picture(Condition(corruption, int(severity)), int(number))
                assert expected.shape == (40, 40, 3)
                assert data == cv2.imencode('.jpg', expected, JPEG)[1].tobytes()
        results = whole[1]
        cell = json.loads((whole[0] / 'cells' / 'clean.json').read_text())
        for example in results['examples']:
            label, number = example['ground_truth']['label'], str(example['number'])
            assert example['img_path'].split('/')[-2][0] == str(label)
            for name in ('sharp', 'dull'):
                guess = cell['models'][name]['examples'][number]
                assert 0 <= guess['label'] < 4
                assert 0 < guess['score'] <= 1
        words = [one.text for one in section(page, 'worst').all('small')]
        form = r'[\w ]+: (✓ \S+ \d\.\d\d|✗ \S+ \d\.\d\d \(it is \S+\))'
        assert all(re.fullmatch(form, word) for word in words)
        right = [bool(scene.all('rect', 'right')) for scene in scenes]
        assert right == ['✓' in word for word in words]
        assert 0 < sum(right) < len(right)

    def test_a_picture_that_is_gone(self, whole, tmp_path):
        shutil.copytree(whole[0], tmp_path / 'run')
        for file in (tmp_path / 'run' / 'examples').glob('*-none-0-0.jpg'):
            file.unlink()
        page = read_page(write_report(tmp_path / 'run'))
        assert '-none-0-0.jpg is not there' in page.all('aside')[0].text
        assert page.all('image') == []

    @pytest.mark.long
    def test_each_model_has_the_pictures_of_its_own_pipeline(self, case, tmp_path):
        """Also where runs are compared that were tested apart."""
        text = (case / 'config.py').read_text().replace('crop_size=40', 'crop_size=48')
        (case / 'large.py').write_text(text)
        small, large = sources(case)[0], sources(case, 'large.py')[1]
        together, *apart = (tmp_path / name for name in ('together', 'small', 'large'))
        evaluate_robustness([small, large], together, **CELLS)
        for source, out in zip((small, large), apart, strict=True):
            evaluate_robustness([source], out, **CELLS)
        compared = compare(apart, tmp_path / 'both')
        for file in (write_report(together), compared):
            page = read_page(file)
            sizes = {one.attributes['id']: one.attributes['width'] for one in page.all('image')}
            scenes = section(page, 'worst').all('svg', 'scene')
            found = [sizes[scene.all('use')[0].attributes['href'][1:]] for scene in scenes]
            assert found == ['40'] * 4 + ['48'] * 4

    def test_what_does_not_count_is_not_shown_as_right(self, case):
        """A guess below the threshold of Accuracy."""
        metric = dict(type='mmpretrain.Accuracy', thrs=0.5)
        adapter = build_adapter(metric, dict(classes=('a', 'b')))
        sample = dict(
            gt_label=torch.tensor([1]),
            pred_label=torch.tensor([1]),
            pred_score=torch.tensor([0.1, 0.4]),
        )
        assert adapter.per_image([sample], None) == [Top1(1, False)]
        found = adapter.example(sample)
        assert found == {'label': 1, 'score': pytest.approx(0.4), 'right': False}

    @pytest.mark.long
    def test_images_of_another_set_are_drawn_apart(self, case, tmp_path):
        """Even of the same images: R is then not known better than it is."""
        shifts = {'again': dict(type='CustomDataset', data_root=str(case / 'images'))}
        found = evaluate_robustness(sources(case), tmp_path / 'out', shifted_sets=shifts, **CELLS)
        cells = [
            json.loads((tmp_path / 'out' / 'cells' / f'{name}.json').read_text())
            for name in ('clean', 'again-0')
        ]
        here, there = (cell['models']['dull'] for cell in cells)
        assert here['value'] == there['value']
        assert here['resampled'] != there['resampled']
        assert found['models']['dull']['shifts']['again']['R'] == 1

    @pytest.mark.long
    def test_a_subset_larger_than_another_set_takes_all_of_it(self, case, tmp_path):
        shifts = {'others': dict(type='CustomDataset', data_root=str(case / 'others'))}
        found = evaluate_robustness(
            sources(case), tmp_path / 'out', subset=20, shifted_sets=shifts, **CELLS
        )
        assert found['protocol']['dataset']['images'] == 20
        assert found['protocol']['shifts']['others']['images'] == 16

    @pytest.mark.long
    def test_unreadable_images_of_another_set_are_counted_apart(self, case, tmp_path):
        shutil.copytree(case / 'others', tmp_path / 'others')
        (tmp_path / 'others' / '0_left' / '0.png').write_bytes(b'no image')
        shifts = {'v2': dict(type='CustomDataset', data_root=str(tmp_path / 'others'))}
        with pytest.raises(
            UnreadableImagesError, match=r'^1 of 16 images of v2 could not be read'
        ):
            evaluate_robustness(sources(case), tmp_path / 'out', shifted_sets=shifts, **CELLS)
        for file in (tmp_path / 'others').rglob('*.png'):
            file.write_bytes(b'no image')
        with pytest.raises(ValueError, match=r'^v2: none of 16 images can be read'):
            evaluate_robustness(sources(case), tmp_path / 'other', shifted_sets=shifts, **CELLS)
        page = read_page(write_report(tmp_path / 'other'))
        assert '5 of 6 cells are there. Missing: v2.' in page.all('aside')[0].text

    @pytest.mark.long
    def test_runs_apart_compare_on_another_set_as_one_run_does(self, case, whole, tmp_path):
        """With the same intervals, since images are drawn alike; the first run's is the reference.

        Of their own the runs have no differences.
        """
        shifts = {'others': dict(type='CustomDataset', data_root=str(case / 'others'))}
        for source in sources(case):
            evaluate_robustness([source], tmp_path / source.name, shifted_sets=shifts, **CELLS)
        page = compare([tmp_path / name for name in ('sharp', 'dull')], tmp_path / 'both')
        assert 'not finished' not in page.read_text()
        together, apart = (
            [
                row
                for row in (folder / 'report.csv').read_text().splitlines()
                if row.startswith('dull,') and ',others,' in row
            ]
            for folder in (write_report(whole[0]).parent, tmp_path / 'both')
        )
        assert len(together) == 2
        assert all(row.rpartition(',')[2] for row in together)
        assert apart == together


@pytest.mark.long
def test_without_mmdet(case, whole, tmp_path):
    """The tool, in an environment that lacks mmdet, gives the same."""
    (tmp_path / 'packages').mkdir()
    environment = without(tmp_path / 'packages', 'mmdet', 'onedl_mmdet')
    arguments = [case / 'config.py', *(f'{n}={case}/{n}.pth' for n in ('sharp', 'dull'))]
    arguments += ['--out', tmp_path / 'out', '--workers', '0']
    arguments += ['--corruptions', *CELLS['corruptions']]
    arguments += ['--severities', *CELLS['severities']]
    printed = python(environment, ROOT / 'tools' / 'robustness.py', *arguments)
    assert 'accuracy/top1; 2 corruptions' in printed
    results = json.loads((tmp_path / 'out' / 'results.json').read_text())
    for name, model in results['models'].items():
        assert model['cells'] == whole[1]['models'][name]['cells']
        assert model['ci95'] == whole[1]['models'][name]['ci95']
    assert 'mmdet' not in results['protocol']['versions']


class TestImages:
    @pytest.fixture(autouse=True)
    def scope(self):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            yield

    def test_are_corrupted_at_the_size_of_the_model(self, case):
        """As ImageNet-C was made: not the file, but what is left of it."""
        config = Config.fromfile(case / 'config.py')
        test_set = build_test_set({'a': config.test_dataloader})
        (_, views), (_, plain) = (
            test_set.images[Condition(*which), 7] for which in (('fog', 3), ('none', 0))
        )
        image = plain[0]['inputs'].permute(1, 2, 0).numpy()
        assert image.shape == (40, 40, 3)
        step = ImageCorruption('fog', 3)
        expected = step({'img': image, 'img_id': '1_right/1.png'})['img']
        assert np.array_equal(views[0]['inputs'].permute(1, 2, 0).numpy(), expected)
        assert test_set.ids[7] == '1_right/1.png'

    def test_in_memory(self, case, tmp_path):
        """CIFAR's: no step loads them, and they are RGB."""
        from mmpretrain.registry import DATASETS

        @DATASETS.register_module(force=True)
        class InMemory:
            metainfo = dict(classes=SIDES)

            def __len__(self) -> int:
                return 3

            def get_data_info(self, index: int) -> dict:
                image = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
                return dict(img=image, gt_label=index, sample_idx=index)

        loader = dict(dataset=dict(type='InMemory', pipeline=[dict(type='PackInputs')]))
        test_set = build_test_set({'a': loader})
        _, views = test_set.images[Condition('jpeg_compression', 3), 1]
        image = test_set.images.info(1)['img']
        expected = ImageCorruption('jpeg_compression', 3, channel_order='rgb')(
            {'img': image.copy(), 'img_id': 1}
        )['img']
        assert np.array_equal(views[0]['inputs'].permute(1, 2, 0).numpy(), expected)
        before = test_set.description['sha256']
        InMemory.get_data_info = lambda self, index: dict(
            img=np.full((32, 32, 3), index, np.uint8), gt_label=index, sample_idx=index
        )
        assert build_test_set({'a': loader}).description['sha256'] != before

    def test_a_crop_behind_another_step_is_refused(self, case, tmp_path):
        text = (case / 'config.py').read_text()
        crop = "    dict(type='CenterCrop', crop_size=40),\n"
        text = text.replace(crop, "    dict(type='Normalize', mean=[0], std=[1]),\n" + crop)
        (case / 'late.py').write_text(text)
        with pytest.raises(ValueError, match='has CenterCrop behind ResizeEdge'):
            evaluate_robustness(sources(case, 'late.py')[:1], tmp_path / 'out', **CELLS)

    def test_chance_is_refused(self, case, tmp_path):
        text = (
            (case / 'config.py')
            .read_text()
            .replace("'CenterCrop', crop_size", "'RandomCrop', crop_size")
        )
        (case / 'chance.py').write_text(text)
        with pytest.raises(ValueError, match=r'has RandomCrop .*leave out chance'):
            evaluate_robustness(sources(case, 'chance.py')[:1], tmp_path / 'out', **CELLS)

    @pytest.mark.parametrize(
        ('label', 'message'),
        [
            ('-1', r'the label of 1_right/3.png is -1, and labels are from 0 to 3'),
            ('4', r'the label of 1_right/3.png is 4, and labels are from 0 to 3'),
            ('', r'test_dataloader.dataset: not enough values'),
        ],
    )
    def test_labels_of_no_class(self, case, tmp_path, label, message):
        names = sorted((case / 'images').rglob('*.png'))
        lines = [f'{p.relative_to(case / "images")} {p.parent.name[0]}' for p in names]
        lines = [f'1_right/3.png {label}' if '1_right/3' in line else line for line in lines]
        (tmp_path / 'ann.txt').write_text('\n'.join(line.strip() for line in lines))
        settings = f"'CustomDataset', ann_file='{tmp_path}/ann.txt', classes=list('abcd'),"
        text = (case / 'config.py').read_text().replace("'CustomDataset',", settings)
        (case / 'labels.py').write_text(text)
        with pytest.raises(ValueError, match=message):
            evaluate_robustness(sources(case, 'labels.py'), tmp_path / 'out', **CELLS)

    def test_classes_that_are_numbers(self, case, tmp_path):
        text = (case / 'config.py').read_text()
        text = text.replace(
            "'CustomDataset',", "'CustomDataset', metainfo=dict(classes=[0, 1, 2, 3]),"
        )
        (case / 'numbers.py').write_text(text)
        found = evaluate_robustness(sources(case, 'numbers.py'), tmp_path / 'out', **CELLS)
        assert found['classes'] == ['0', '1', '2', '3']
        assert write_report(tmp_path / 'out').exists()

    def test_a_folder_whose_results_are_torn_goes_on(self, case, whole, tmp_path):
        """Of cells that are no longer what was written, too; pictures are made again."""
        shutil.copytree(whole[0], tmp_path / 'out')
        file = tmp_path / 'out' / 'results.json'
        file.write_bytes(file.read_bytes()[:500])
        cell = tmp_path / 'out' / 'cells' / 'fog-5.json'
        renamed = json.loads(cell.read_text()) | {'severity': 2}
        cell.write_text(json.dumps(renamed))
        other = tmp_path / 'out' / 'cells' / 'gaussian_noise-2.json'
        lacking = json.loads(other.read_text())
        del lacking['models']['dull']['value']
        other.write_text(json.dumps(lacking))
        shutil.rmtree(tmp_path / 'out' / 'examples')
        shifts = {'others': dict(type='CustomDataset', data_root=str(case / 'others'))}
        again = evaluate_robustness(sources(case), tmp_path / 'out', shifted_sets=shifts, **CELLS)
        for name, model in again['models'].items():
            assert model['cells'] == whole[1]['models'][name]['cells']
        names = [
            {p.name for p in (f / 'examples').iterdir()} for f in (whole[0], tmp_path / 'out')
        ]
        assert names[0] == names[1]

    def test_set_that_names_no_classes(self, case, whole, tmp_path):
        """CustomDataset with an ann_file alone."""
        names = sorted((case / 'images').rglob('*.png'))
        lines = [f'{p.relative_to(case / "images")} {p.parent.name[0]}\n' for p in names]
        (tmp_path / 'ann.txt').write_text(''.join(lines))
        text = (case / 'config.py').read_text()
        text = text.replace("'CustomDataset',", f"'CustomDataset', ann_file='{tmp_path}/ann.txt',")
        (case / 'ann.py').write_text(text)
        results = evaluate_robustness(sources(case, 'ann.py'), tmp_path / 'out', **CELLS)
        for name, model in results['models'].items():
            assert model['cells'] == whole[1]['models'][name]['cells']
            assert model['per_class'] == {}

    @pytest.mark.parametrize('name', ['none', 'a/b', '_a', ''])
    def test_names_of_other_sets(self, case, tmp_path, name):
        shifts = {name: dict(type='CustomDataset', data_root=str(case / 'others'))}
        with pytest.raises(ValueError, match='is no name for a set'):
            evaluate_robustness(sources(case), tmp_path / 'out', shifted_sets=shifts, **CELLS)


class TestAlexNet:
    def test_no_model_may_have_its_name(self, case, tmp_path):
        (_, *rest), *_ = sources(case)
        with pytest.raises(ValueError, match='rename it'):
            evaluate_robustness([ModelSource(ALEXNET, *rest)], tmp_path / 'out', **CELLS)

    def test_mce_of_itself_is_100(self):
        every = {name: range(1, 6) for name in BENCHMARK}
        cells, clean = alexnet(every)
        summary = summarize(cells, clean, reference=alexnet(every))
        assert summary['mCE'] == pytest.approx(100)
        assert summary['relative_mCE'] == pytest.approx(100)

    def test_errors_are_the_published_means(self):
        """Means over the severities, as the paper's table 1 rounds them."""
        means = {
            'gaussian_noise': 88.6,
            'shot_noise': 89.4,
            'impulse_noise': 92.3,
            'defocus_blur': 82.0,
            'glass_blur': 82.6,
            'motion_blur': 78.6,
            'zoom_blur': 79.8,
            'snow': 86.7,
            'frost': 82.7,
            'fog': 81.9,
            'brightness': 56.5,
            'contrast': 85.3,
            'elastic_transform': 64.6,
            'pixelate': 71.8,
            'jpeg_compression': 60.7,
        }
        cells, clean = alexnet({name: range(1, 6) for name in BENCHMARK})
        for name, row in cells.items():
            assert 100 - 100 * np.mean(list(row.values())) == pytest.approx(means[name], abs=0.051)
        assert clean == pytest.approx(0.5652)

    @pytest.mark.long
    def test_is_the_reference_on_imagenet(self, case, tmp_path):
        """1000 classes of ImageNet, and a hand-made mCE over a part of the cells."""
        source = imagenet(case, tmp_path)
        results = evaluate_robustness([source], tmp_path / 'out', **CELLS)
        assert results['mCE_reference'] == 'AlexNet (published)'
        model = results['models']['a']
        errors = {'fog': 0.76050 + 0.94500, 'gaussian_noise': 0.82542 + 0.99452}
        ces = [
            100 * sum(1 - p for p in model['cells'][name].values()) / error
            for name, error in errors.items()
        ]
        assert model['mCE'] == pytest.approx(np.mean(ces))
        page = write_report(tmp_path / 'out').read_text()
        assert 'relative to AlexNet (published)' in page
        assert 'these images were computed' in page
        assert 'on all 50,000 validation images' in page
        assert 'and here are 24, of 4 of the 1000 classes' in page
        own = evaluate_robustness([source], tmp_path / 'own', reference='a', **CELLS)
        assert own['mCE_reference'] == 'a'
        assert json.loads((tmp_path / 'own' / 'results.json').read_text())['reference'] == 'a'


@pytest.mark.long
def test_imagenet_v2_by_the_tool(case, tmp_path, run_tool):
    """In the published layout; that labels are right is in test_imagenet_v2.py."""
    image = next((case / 'others' / '1_right').glob('*.png'))
    for label in range(1000):
        folder = tmp_path / 'v2' / 'imagenetv2-matched-frequency-format-val' / str(label)
        folder.mkdir(parents=True)
        for number in range(10):
            (folder / f'{number}.png').symlink_to(image)
    source = imagenet(case, tmp_path)
    code, out, err = run_tool(
        *('robustness.py', source.config, f'a={source.checkpoint}', '--out', tmp_path / 'out'),
        *('--imagenet-v2', tmp_path / 'v2', '--corruptions', 'fog', '--severities', 1),
        *('--workers', 0, '--subset', 24, '--resamples', 20),
    )
    assert not code, err
    assert 'mCE refers to AlexNet (published)' in out
    assert 'clean, %' in out
    assert 'a on imagenet-v2-matched-frequency: ' in out
    results = json.loads((tmp_path / 'out' / 'results.json').read_text())
    found = results['models']['a']['shifts']['imagenet-v2-matched-frequency']
    # All of one image, which is of label 1 in a quarter of them: the test set has four labels.
    assert 0 < found['P'] < 0.5
    assert found['R'] == pytest.approx(found['P'] / results['models']['a']['clean'])
    described = results['protocol']['shifts']['imagenet-v2-matched-frequency']
    assert (described['images'], described['of']) == (24, 40)


def test_a_variant_of_no_set_is_refused(run_tool):
    code, _, err = run_tool(
        'robustness.py', 'config.py', 'a.pth', '--out', 'out', '--variant', 'top-images'
    )
    assert code == 2
    assert '--variant is of ImageNet-V2' in err


@pytest.mark.long
class TestPublished:
    """ImageNet-C from its files instead of computed."""

    @pytest.fixture
    def published(self, case, tmp_path) -> dict:
        """The images of the case, corrupted behind the crop, as ImageNet-C has them."""
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            config = Config.fromfile(case / 'config.py')
            images = build_test_set({'a': config.test_dataloader}).images
            for name in CELLS['corruptions']:
                for severity in CELLS['severities']:
                    for position in range(len(images)):
                        _, views = images[Condition(name, severity), position]
                        file = tmp_path / 'c' / name / str(severity)
                        file = file / images.info(position)['img_id']
                        file.parent.mkdir(parents=True, exist_ok=True)
                        image = views[0]['inputs'].permute(1, 2, 0).numpy()
                        cv2.imwrite(str(file), image)
        wnids = [f'{i}_{side}' for i, side in enumerate(SIDES)]
        settings = dict(wnids=wnids, images_per_class=None)
        return dict(type='ImageNetC', data_root=str(tmp_path / 'c'), **settings)

    def test_equals_what_is_computed(self, case, whole, published, tmp_path):
        results = evaluate_robustness(
            sources(case), tmp_path / 'out', published=published, workers=1, **CELLS
        )
        assert results['protocol']['mode'] == 'published'
        for name, model in results['models'].items():
            assert model['cells'] == whole[1]['models'][name]['cells']
            assert model['clean'] == whole[1]['models'][name]['clean']
        assert 'published' in write_report(tmp_path / 'out').read_text()

    def test_another_size_is_refused(self, case, published, tmp_path):
        text = (case / 'config.py').read_text().replace('crop_size=40', 'crop_size=48')
        (case / 'large.py').write_text(text)
        with pytest.raises(ValueError, match='40 x 40 pixels, and the config makes 48 x 48'):
            evaluate_robustness(
                sources(case, 'large.py'), tmp_path / 'out', published=published, **CELLS
            )

    def test_a_missing_condition_is_named_before_anything_is_tested(
        self, case, published, tmp_path
    ):
        cells = dict(corruptions=['fog', 'snow'], severities=[2])
        with pytest.raises(FileNotFoundError, match='neither snow/ nor weather/snow/'):
            evaluate_robustness(sources(case), tmp_path / 'out', published=published, **cells)
        assert not (tmp_path / 'out').exists()

    def test_a_partial_condition_ends_the_run(self, case, published, tmp_path):
        folder = Path(published['data_root'], 'gaussian_noise', '2', '3_bottom')
        shutil.rmtree(folder)
        with pytest.raises(
            LoadingFailedError, match=r'gaussian_noise 2 .* lacks 1 of 4 class folders'
        ):
            evaluate_robustness(sources(case), tmp_path / 'out', published=published, **CELLS)

    def test_a_part_of_the_classes(self, case, whole, published, tmp_path):
        """Of a clean set with two of the classes, ImageNet-C need not have the others."""
        for folder in Path(published['data_root']).glob('*/*'):
            for name in ('0_left', '2_top'):
                shutil.rmtree(folder / name)
        files = sorted((case / 'images').glob('[13]_*/*.png'))
        lines = [f'{p.relative_to(case / "images")} {p.parent.name[0]}\n' for p in files]
        (tmp_path / 'ann.txt').write_text(''.join(lines))
        names = [f'{i}_{side}' for i, side in enumerate(SIDES)]
        settings = f"'CustomDataset', ann_file='{tmp_path}/ann.txt', classes={names},"
        text = (case / 'config.py').read_text().replace("'CustomDataset',", settings)
        (case / 'part.py').write_text(text)
        results = evaluate_robustness(
            sources(case, 'part.py'), tmp_path / 'out', published=published, **CELLS
        )
        assert results['protocol']['dataset']['of'] == 12
        for name, model in results['models'].items():
            of_all = whole[1]['models'][name]['per_class']
            for label in ('1_right', '3_bottom'):
                assert model['per_class'][label] == of_all[label]

    def test_missing_images_end_the_run(self, case, published, tmp_path):
        folder = Path(published['data_root'], 'fog', '2')
        (folder / '1_right' / '3.png').unlink()
        (folder / '2_top' / '3.png').rename(folder / '2_top' / '33.png')
        message = r'fog 2 of ImageNetC lacks 2 of 24 images .*\(1_right/3\.png, 2_top/3\.png\)'
        with pytest.raises(ValueError, match=message):
            evaluate_robustness(sources(case), tmp_path / 'out', published=published, **CELLS)
        assert not (tmp_path / 'out').exists()

    def test_detectors_have_none(self):
        """Their images have no class each."""

        class OneImage:
            def get_data_info(self, index: int) -> dict:
                return {'img_id': 'one', 'instances': []}

        with pytest.raises(ValueError, match='read published images for classifiers alone'):
            PublishedImages(OneImage(), [0], [], dict(type='ImageNetC', data_root='data'))

    @pytest.mark.parametrize('kind', ['CIFAR10C', 'mmpretrain.ImageNetC'])
    def test_is_no_set_of_clean_images(self, kind):
        dataset = dict(type=kind, data_root='data', corruption='fog', severity=1, pipeline=[])
        option = '--cifar10-c' if kind == 'CIFAR10C' else '--imagenet-c'
        with pytest.raises(ValueError, match=f'corrupts its images already .*; {option} then'):
            build_test_set({'a': dict(dataset=dataset)})

    def test_a_torn_image_ends_the_run_and_repaired_it_goes_on(
        self, case, whole, published, tmp_path
    ):
        """Left out of this condition, it would be in the means of the others."""
        file = Path(published['data_root'], 'gaussian_noise', '5', '1_right', '3.png')
        sound = file.read_bytes()
        file.write_bytes(b'no image')
        with pytest.raises(
            LoadingFailedError, match=rf'gaussian_noise 5 .*{file.name} cannot be read'
        ):
            evaluate_robustness(sources(case), tmp_path / 'out', published=published, **CELLS)
        file.write_bytes(sound)
        results = evaluate_robustness(
            sources(case), tmp_path / 'out', published=published, **CELLS
        )
        for name, model in results['models'].items():
            assert model['cells'] == whole[1]['models'][name]['cells']

    def test_files_of_another_place_are_not_put_into_the_same_run(self, case, published, tmp_path):
        evaluate_robustness(sources(case), tmp_path / 'out', published=published, **CELLS)
        shutil.copytree(published['data_root'], tmp_path / 'copy')
        other = {**published, 'data_root': str(tmp_path / 'copy')}
        with pytest.raises(ProtocolMismatchError, match=r'published\.data_root is'):
            evaluate_robustness(sources(case), tmp_path / 'out', published=other, **CELLS)
        evaluate_robustness(sources(case)[1:], tmp_path / 'other', published=other, **CELLS)
        page = compare([tmp_path / 'out', tmp_path / 'other'], tmp_path / 'both').read_text()
        assert 'The runs differ in published' in page

    def test_another_label_ends_the_run(self, case, published, tmp_path):
        """Not an image to be left out: the sets do not go together."""
        published['wnids'] = [published['wnids'][i] for i in (1, 0, 2, 3)]
        with pytest.raises(ValueError, match=r'label of .* is 1, and .* 0: .* sorted otherwise'):
            evaluate_robustness(sources(case), tmp_path / 'out', published=published, **CELLS)
