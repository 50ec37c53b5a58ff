# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models tested side by side, on images that they share."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.config import Config
from mmengine.runner import Runner
from torch._utils import ExceptionWrapper

from _utils.processes import in_processes
from _utils.robustness_case import without_times, write_config
from builtin_sets.tiny_voc import build_tiny_voc
from mmdet_adasap.apis import ModelSource, evaluate_robustness
from mmdet_adasap.errors import (
    LoadingFailedError,
    OtherProcessError,
    ProtocolMismatchError,
    UnreadableImagesError,
)
from mmdet_adasap.robustness.datasets import ImageCorruption
from mmdet_adasap.robustness.datasets.multi_view import CLEAN, Condition
from mmdet_adasap.robustness.engine import loading_error
from mmdet_adasap.robustness.metrics.bootstrap import interval
from mmdet_adasap.robustness.metrics.mpc import summarize
from mmdet_adasap.robustness.protocol import check_same_protocol
from mmdet_adasap.robustness.report import write_report
from mmdet_adasap.robustness.results import build_models
from mmdet_adasap.robustness.run import Progress

ROOT = Path(__file__).parents[2]
NAMES = ['sharp', 'dull', 'blind']
CELLS = dict(corruptions=['fog', 'gaussian_noise'], severities=[1, 4])


@pytest.fixture(scope='module')
def case(tmp_path_factory) -> Path:
    """A folder with a set of 10 test images, a config and three checkpoints."""
    from _utils.seeing_detector import SeeingDetector

    folder = tmp_path_factory.mktemp('robustness')
    build_tiny_voc(folder / 'voc', seed=1, train=2, val=2, test=10, size=96)
    write_config(folder / 'config.py', folder / 'voc')
    for name, blur in zip(NAMES, (1.0, 3.0, 6.0), strict=True):
        torch.save(dict(state_dict=SeeingDetector(blur).state_dict()), folder / f'{name}.pth')
    return folder


def sources(case: Path, *names: str, config: str = 'config.py') -> list[ModelSource]:
    return [ModelSource(n, str(case / config), str(case / f'{n}.pth')) for n in names or NAMES]


def run(case: Path, out: Path, *names: str, **changed) -> dict:
    return evaluate_robustness(sources(case, *names), out, **{**CELLS, **changed})


@pytest.fixture(scope='module')
def whole(case) -> tuple[Path, dict]:
    """An uninterrupted run of the three models."""
    out = case / 'whole'
    return out, run(case, out)


class TestFigures:
    def test_are_what_mmdet_computes(self, case, whole):
        """Clean and in one cell, by mmdet's Runner."""
        config = Config.fromfile(case / 'config.py')
        for corruption, severity in (('none', 1), ('fog', 4)):
            config.test_dataloader.dataset.update(corruption=corruption, severity=severity)
            config.update(work_dir=str(case / 'runner'), load_from=str(case / 'dull.pth'))
            config.update(log_level='ERROR', experiment_name=f'{corruption}{severity}')
            expected = Runner.from_cfg(config).test()['pascal_voc/mAP']
            model = whole[1]['models']['dull']
            found = model['clean'] if corruption == 'none' else model['cells'][corruption]['4']
            assert 0.1 < expected < 0.99
            assert found == pytest.approx(expected, abs=1e-12)

    def test_exact_mode(self, case, whole, tmp_path):
        exact = run(case, tmp_path / 'out', 'dull', mode='exact')['models']['dull']['cells']
        fast = whole[1]['models']['dull']['cells']
        noise = [cells['gaussian_noise']['4'] for cells in (exact, fast)]
        assert noise[0] != noise[1]
        assert noise[0] == pytest.approx(noise[1], abs=0.3)
        report = write_report(tmp_path / 'out').read_text()
        assert 'exact' in report
        assert 'cannot be' not in report

    def test_means_are_those_of_summarize(self, whole):
        reference = whole[1]['models']['sharp']
        for model in whole[1]['models'].values():
            summary = summarize(
                model['cells'], model['clean'], reference=(reference['cells'], reference['clean'])
            )
            for key in ('mPC', 'rPC', 'mCE', 'relative_mCE', 'CE', 'per_group'):
                assert model[key] == summary[key]
            assert not model['over']['complete']
        assert whole[1]['models']['sharp']['mCE'] == 100
        assert whole[1]['models']['blind']['mCE'] > whole[1]['models']['dull']['mCE'] > 100

    def test_intervals_and_differences(self, whole):
        for name, model in whole[1]['models'].items():
            for key in ('clean', 'mPC', 'rPC'):
                low, high = model['ci95'][key]
                assert low <= model[key] <= high
            if name != 'sharp':
                difference = model['difference']['mPC']
                sharp = whole[1]['models']['sharp']
                assert difference['value'] == pytest.approx(model['mPC'] - sharp['mPC'])
                assert difference['ci95'][0] <= difference['value'] <= difference['ci95'][1] < 0

    def test_intervals_of_means_are_of_means(self, whole):
        """The same draws in all cells: resample by resample as summarize would."""
        cells = {
            path.stem: json.loads(path.read_text())['models']['dull']['resampled']
            for path in (whole[0] / 'cells').glob('[!_]*.json')
        }
        draws = [
            summarize(
                {c: {s: cells[f'{c}-{s}'][i] for s in (1, 4)} for c in CELLS['corruptions']}, 1.0
            )['mPC']
            for i in range(1000)
        ]
        dull = whole[1]['models']['dull']
        expected = interval(np.array(draws), dull['mPC'], (0, 1))
        assert dull['ci95']['mPC'] == pytest.approx(expected, abs=1e-12)

    def test_per_class_and_costs(self, whole):
        model = whole[1]['models']['dull']
        classes = [row['clean'] for row in model['per_class'].values() if row['clean'] is not None]
        assert len(model['per_class']) == 10
        assert np.mean(classes) == pytest.approx(model['clean'], abs=1e-6)
        assert model['cost']['params'] == 5
        cost = model['cost']
        assert 0 < cost['latency_low_ms'] <= cost['latency_ms'] <= cost['latency_high_ms']

    def test_examples_are_kept(self, whole):
        cell = json.loads((whole[0] / 'cells' / 'fog-4.json').read_text())
        numbers = {str(example['number']) for example in whole[1]['examples']}
        assert len(numbers) == 6
        for model in cell['models'].values():
            assert model['examples'].keys() == numbers
            for example in whole[1]['examples']:
                found = model['examples'][str(example['number'])]
                assert len(found['labels']) == 2 * len(example['ground_truth']['labels'])


class TestSharing:
    @pytest.mark.long
    def test_gives_what_separate_runs_give(self, case, whole, tmp_path):
        for name in NAMES:
            alone = run(case, tmp_path / name, name)['models'][name]
            together = whole[1]['models'][name]
            for key in ('clean', 'cells', 'mPC', 'rPC', 'per_class', 'ci95'):
                assert alone[key] == together[key]

    def test_loads_and_corrupts_once(self, case, tmp_path, monkeypatch):
        counts = []
        call = ImageCorruption.__call__
        monkeypatch.setattr(
            ImageCorruption, '__call__', lambda self, r: counts.append(1) or call(self, r)
        )
        run(case, tmp_path / 'out')
        assert len(counts) == 10 * 5 + 1  # and the image for the costs

    @pytest.mark.long
    def test_workers_and_another_pipeline(self, case, whole, tmp_path):
        """A config that resizes otherwise shares the image and nothing behind it."""
        pipeline = Config.fromfile(case / 'config.py').test_pipeline
        pipeline[1].scale = (64, 64)
        more = f'test_dataloader = dict(batch_size=4, dataset=dict(pipeline={pipeline!r}))'
        write_config(case / 'small.py', case / 'voc', '')
        text = (case / 'small.py').read_text()
        head = text.partition('test_dataloader')[0]
        data = f'{case}/voc/VOCdevkit/'
        (case / 'small.py').write_text(
            head + more.replace('dataset=dict(', f'dataset=dict(data_root={data!r}, ') + '\n'
        )
        mixed = [*sources(case, 'sharp', 'dull'), *sources(case, 'blind', config='small.py')]
        results = evaluate_robustness(mixed, tmp_path / 'mixed', workers=2, **CELLS)
        alone = evaluate_robustness(
            sources(case, 'blind', config='small.py'), tmp_path / 'alone', **CELLS
        )
        found = {name: model['cells'] for name, model in results['models'].items()}
        assert found['blind'] == alone['models']['blind']['cells']
        assert found['blind'] != whole[1]['models']['blind']['cells']
        for name in ('sharp', 'dull'):
            assert found[name] == whole[1]['models'][name]['cells']

    @pytest.mark.long
    def test_two_processes_are_one(self, case, whole, tmp_path):
        in_processes(in_one_of_two, tmp_path / 'processes', case, tmp_path / 'out')
        assert without_times(tmp_path / 'out') == without_times(whole[0])

    @pytest.mark.long
    def test_error_of_rank_0_ends_both(self, case, tmp_path):
        out = tmp_path / 'out'
        out.mkdir()
        (out / 'results.json').write_text('{}')
        errors = in_processes(error_in_one_of_two, tmp_path / 'processes', case, out)
        assert errors == ['ProtocolMismatchError', 'OtherProcessError']


def in_one_of_two(case: Path, out: Path) -> None:
    run(case, out)


def error_in_one_of_two(case: Path, out: Path) -> str:
    try:
        run(case, out)
    except (ProtocolMismatchError, OtherProcessError) as error:
        return type(error).__name__
    return ''


class StoppedError(Exception):
    """What a killed process would not even say."""


class TestModelThatFindsNothing:
    def test_has_no_rpc_and_a_relative_mce_of_its_own(self, case):
        """E_{c,s} - E_clean is 0 for it, whatever the reference."""
        cells = {
            CLEAN: {'models': {'good': sample(0.5), 'dead': sample(0.0)}},
            Condition('fog', 3): {'models': {'good': sample(0.4), 'dead': sample(0.0)}},
        }
        found = build_models(cells, ['good', 'dead'], list(cells), 'good', False)['dead']
        assert found['rPC'] is None
        assert found['relative_mCE'] == 0
        assert found['mCE'] == pytest.approx(100 / 0.6)
        other = build_models(cells, ['good', 'dead'], list(cells), 'dead', False)['good']
        # The reference loses nothing, so that there is no ratio to it.
        assert other['relative_mCE'] is None
        assert other['mCE'] == pytest.approx(60)


def sample(value: float) -> dict:
    return {'value': value, 'per_class': {}, 'resampled': None}


class TestResuming:
    @pytest.mark.parametrize('after', [4, 30])
    def test_equals_an_uninterrupted_run(self, case, whole, tmp_path, after):
        left = [after]

        def stop(images: int) -> None:
            left[0] -= images
            if left[0] <= 0:
                raise StoppedError

        with pytest.raises(StoppedError):
            run(case, tmp_path / 'out', progress=Progress(images=stop))
        before = json.loads((tmp_path / 'out' / 'results.json').read_text())
        assert not before['finished']
        assert before['models']['dull']['mPC'] is None
        tested = []
        run(case, tmp_path / 'out', progress=Progress(images=tested.append))
        assert sum(tested) == 50 - (after - 1) // 10 * 10
        assert without_times(tmp_path / 'out') == without_times(whole[0])

    def test_partial_means_are_marked(self, case, tmp_path):
        def stop(images: int) -> None:
            if len(list((tmp_path / 'out' / 'cells').glob('[!_]*.json'))) == 4:
                raise StoppedError

        with pytest.raises(StoppedError):
            run(case, tmp_path / 'out', partial=True, progress=Progress(images=stop))
        model = json.loads((tmp_path / 'out' / 'results.json').read_text())['models']['dull']
        assert model['over']['partial']
        assert model['over']['severities'] == [1, 4]
        assert model['over']['missing'] == {'gaussian_noise': [4]}
        fog, noise = model['cells']['fog'], model['cells']['gaussian_noise']
        assert model['mPC'] == pytest.approx(((fog['1'] + fog['4']) / 2 + noise['1']) / 2)

    @pytest.mark.long
    @pytest.mark.parametrize(
        ('changed', 'setting'),
        [
            (dict(severities=[1, 3]), r'severities is \[1, 4\] there and \[1, 3\] here'),
            (dict(corruptions=['fog']), 'corruptions is'),
            (dict(seed=1), 'seed is 0 there and 1 here'),
            (dict(mode='exact'), 'mode is "fast" there and "exact" here'),
            (dict(subset=5), 'subset is null there and 5 here'),
            (dict(batch_size=2), 'batch_size is 4 there and 2 here'),
            (dict(resamples=10), 'bootstrap.resamples is 1000 there and 10 here'),
        ],
    )
    def test_other_settings_are_refused(self, case, whole, changed, setting):
        before = (whole[0] / 'results.json').read_bytes()
        with pytest.raises(ProtocolMismatchError, match=setting):
            run(case, whole[0], **changed)
        assert (whole[0] / 'results.json').read_bytes() == before

    def test_another_checkpoint_is_refused(self, case, whole):
        other = [ModelSource('sharp', str(case / 'config.py'), str(case / 'dull.pth'))]
        with pytest.raises(ProtocolMismatchError, match=r'models.sharp.checkpoint_sha256 is'):
            evaluate_robustness([*other, *sources(case, 'dull', 'blind')], whole[0], **CELLS)

    def test_one_run_at_a_time(self, case, tmp_path):
        def start_another(images: int) -> None:
            with pytest.raises(BlockingIOError, match='another run writes into'):
                run(case, tmp_path / 'out')
            raise StoppedError

        with pytest.raises(StoppedError):
            run(case, tmp_path / 'out', progress=Progress(images=start_another))

    @pytest.mark.long
    def test_full_disk(self, case, whole, tmp_path, monkeypatch):
        from mmdet_adasap import fileio as files
        from mmdet_adasap.robustness import store as results_folder

        def full(path: Path, data: str) -> None:
            if path.name == 'gaussian_noise-1.json':
                raise OSError(28, 'No space left on device')
            files.write_atomically(path, data)

        with monkeypatch.context() as patched:
            patched.setattr(results_folder, 'write_atomically', full)
            with pytest.raises(OSError, match='No space left'):
                run(case, tmp_path / 'out')
        run(case, tmp_path / 'out')
        assert without_times(tmp_path / 'out') == without_times(whole[0])


class TestBadInput:
    @pytest.mark.parametrize(
        ('changed', 'message'),
        [
            (dict(corruptions=['fogg']), "did you mean 'fog'"),
            (dict(severities=[0]), r'severity=0 must be from 1'),
            (dict(severities=[6]), r'severity=6 must be from 1'),
            (dict(subset=11), 'subset=11 must be from 1 to 10'),
            (dict(reference='none'), 'is none of the models'),
            (dict(metric='coco/bbox_mAP'), 'test_evaluator has none of that prefix'),
            (
                dict(cfg_options={'test_dataloader.dataset.corruption': 'fog'}),
                'corrupts its images already',
            ),
            (
                dict(cfg_options={'model.type': 'mmdet.YOLOX'}),
                'YOLOX',
            ),
        ],
    )
    def test_settings(self, case, tmp_path, changed, message):
        with pytest.raises((ValueError, TypeError), match=message):
            run(case, tmp_path / 'out', **changed)

    def test_checkpoint_of_another_model(self, case, tmp_path):
        torch.save(dict(state_dict=torch.nn.Linear(2, 2).state_dict()), case / 'linear.pth')
        with pytest.raises(ValueError, match=r'linear: .* lacks blur of the model'):
            run(case, tmp_path / 'out', 'linear')

    def test_checkpoint_for_other_classes(self, case, tmp_path):
        found = torch.load(case / 'dull.pth')
        meta = dict(dataset_meta=dict(classes=('zero', 'two')))
        torch.save(dict(**found, meta=meta), case / 'other.pth')
        with pytest.raises(ValueError, match=r"trained for 2 classes.*'two' is 'one' there"):
            run(case, tmp_path / 'out', 'other')

    def test_two_of_a_name(self, case, tmp_path):
        with pytest.raises(ValueError, match='two models are called dull'):
            run(case, tmp_path / 'out', 'dull', 'dull')

    def test_model_that_fails(self, case, tmp_path):
        message = r'model dull fails on clean images.*/3\d+\.jpg.*no such thing'
        with pytest.raises(RuntimeError, match=message):
            run(case, tmp_path / 'out', 'dull', cfg_options={'model.fail': True})

    def test_error_in_loading_is_one_line(self, case, tmp_path):
        """A step of the pipeline that is wrong, and what a worker makes of it."""
        write_config(
            tmp_path / 'config.py',
            case / 'voc',
            "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs', "
            "meta_keys=3)]\ntest_dataloader['dataset']['pipeline'] = test_pipeline\n",
        )
        source = ModelSource('dull', str(tmp_path / 'config.py'), str(case / 'dull.pth'))
        with pytest.raises(LoadingFailedError) as error:
            evaluate_robustness([source], tmp_path / 'out', **CELLS)
        expected = "clean images cannot be loaded: TypeError: 'int' object is not iterable"
        assert str(error.value) == expected
        try:
            _ = 'a' + 1
        except TypeError:
            wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
        with pytest.raises(TypeError) as raised:
            wrapped.reraise()
        message = str(loading_error(Condition('fog', 2), raised.value))
        assert message.startswith('fog 2 cannot be loaded: TypeError: can only concatenate')
        assert '\n' not in message

    @pytest.mark.parametrize('worker', [False, True])
    def test_error_in_loading_an_image_names_it(self, worker):
        raised = LoadingFailedError("a.png: KeyError: 'gray'")
        if worker:
            try:
                raise raised
            except LoadingFailedError:
                wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
            with pytest.raises(LoadingFailedError) as again:
                wrapped.reraise()
            raised = again.value
        message = str(loading_error(Condition('fog', 2), raised))
        assert message == "fog 2 cannot be loaded: a.png: KeyError: 'gray'"

    def test_step_that_cannot_take_an_image_leaves_it_out(self, case, tmp_path):
        build_tiny_voc(tmp_path / 'voc', seed=1, train=2, val=2, test=10, size=96)
        write_config(tmp_path / 'config.py', tmp_path / 'voc')
        (tmp_path / 'dull.pth').write_bytes((case / 'dull.pth').read_bytes())
        images = sorted((tmp_path / 'voc/VOCdevkit/VOC2007/JPEGImages').glob('3*.jpg'))
        # As wide as to have no height left when it is resized.
        cv2.imwrite(str(images[4]), np.zeros((32, 9000, 3), np.uint8))
        with pytest.raises(UnreadableImagesError, match=f'1 of 10 images .*{images[4].name}'):
            run(tmp_path, tmp_path / 'out', 'dull', corruptions=['contrast'])

    def test_corrupted_dataset_inside_another_is_refused(self, case, tmp_path):
        text = (case / 'config.py').read_text()
        text += """
inner = dict(_base_.test_dataloader.dataset, data_root={data!r}, corruption='fog')
test_dataloader = dict(
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[inner, inner])
)
""".format(data=f'{case}/voc/VOCdevkit/')
        (tmp_path / 'config.py').write_text(text)
        source = ModelSource('dull', str(tmp_path / 'config.py'), str(case / 'dull.pth'))
        with pytest.raises(ValueError, match='corrupts its images already'):
            evaluate_robustness([source], tmp_path / 'out', **CELLS)

    @pytest.mark.long
    @pytest.mark.parametrize('damage', ['no image', 'cut off', 'small'])
    def test_unreadable_image(self, case, tmp_path, damage):
        """The run goes on and fails in the end; repaired, its cells are tested anew."""
        build_tiny_voc(tmp_path / 'voc', seed=1, train=2, val=2, test=10, size=96)
        write_config(tmp_path / 'config.py', tmp_path / 'voc')
        (tmp_path / 'dull.pth').write_bytes((case / 'dull.pth').read_bytes())
        whole = run(tmp_path, tmp_path / 'whole', 'dull')
        ids = tmp_path / 'voc/VOCdevkit/VOC2007/ImageSets/Main/test.txt'
        image = tmp_path / f'voc/VOCdevkit/VOC2007/JPEGImages/{ids.read_text().split()[3]}.jpg'
        good = image.read_bytes()
        small = cv2.imencode('.jpg', np.zeros((96, 30, 3), np.uint8))[1].tobytes()
        bad = {'no image': b'no image', 'cut off': good[: len(good) // 2], 'small': small}
        image.write_bytes(bad[damage])
        out = tmp_path / 'out'
        with pytest.raises(UnreadableImagesError, match=f'1 of 10 images .*{image.name}') as error:
            run(tmp_path, out, 'dull')
        broken = json.loads((out / 'results.json').read_text())
        assert error.value.results == broken
        assert broken['unreadable'][0]['image'].endswith(image.name)
        assert broken['finished']
        assert broken['models']['dull']['cells'] != whole['models']['dull']['cells']
        for cell in (out / 'cells').glob('[!_]*.json'):
            assert len(json.loads(cell.read_text())['unreadable']) == 1
        files = [out / 'cells' / f'{name}.json' for name in ('clean', 'fog-1', 'gaussian_noise-4')]
        times = [file.stat().st_mtime_ns for file in files]
        with pytest.raises(UnreadableImagesError):
            run(tmp_path, out, 'dull')  # nothing has changed, and nothing is tested again
        assert [file.stat().st_mtime_ns for file in files] == times
        image.write_bytes(good)
        again = run(tmp_path, out, 'dull')
        assert not again['unreadable']
        assert again['models']['dull']['cells'] == whole['models']['dull']['cells']

    def test_no_readable_image(self, case, tmp_path):
        build_tiny_voc(tmp_path / 'voc', seed=1, train=2, val=2, test=3, size=96)
        write_config(tmp_path / 'config.py', tmp_path / 'voc')
        (tmp_path / 'dull.pth').write_bytes((case / 'dull.pth').read_bytes())
        for image in (tmp_path / 'voc/VOCdevkit/VOC2007/JPEGImages').glob('*.jpg'):
            image.write_bytes(b'no image')
        with pytest.raises(ValueError, match='none of 3 images can be read'):
            run(tmp_path, tmp_path / 'out', 'dull')


def test_subset_is_fixed_and_nested(case, tmp_path):
    def ids(count: int, out: str) -> set:
        results = run(case, tmp_path / out, 'dull', subset=count, severities=[1], resamples=0)
        assert results['protocol']['dataset']['images'] == count
        assert results['protocol']['dataset']['of'] == 10
        assert results['models']['dull']['ci95'] is None
        return {example['img_id'] for example in results['examples']}

    assert ids(3, 'a') == ids(3, 'b') < ids(5, 'c')


def test_missing_checkpoint_is_noticed_before_anything_is_read(case, tmp_path):
    said = []
    with pytest.raises(FileNotFoundError, match=r'^gone: \S+gone\.pth is no file; name the'):
        run(case, tmp_path, 'sharp', 'gone', progress=Progress(say=said.append))
    assert said == []


@pytest.mark.parametrize(
    ('key', 'words'),
    [
        ('config_sha256', 'another model, .* paths in these count as well'),
        ('checkpoint_sha256', 'has other bytes, under whatever name'),
    ],
)
def test_another_protocol_is_said_in_words(key, words):
    there, here = ({'models': {'dull': {key: digest}}} for digest in 'ab')
    with pytest.raises(ProtocolMismatchError, match=rf'models\.dull\.{key} is "a" .*{words}'):
        check_same_protocol('out', there, here)
