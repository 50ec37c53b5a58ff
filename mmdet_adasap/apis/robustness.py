# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.registry import init_default_scope

from ..datasets.corruptions import check_condition, check_frost_photos, check_mode
from ..datasets.pipelines import without_pipeline
from ..datasets.shared_images import CLEAN, Condition
from ..evaluation.bootstrap import image_weights
from ..evaluation.engine import Cell, Subject, evaluate_cells
from ..evaluation.protocol import choose_subset, digest, digest_of_file, versions
from ..evaluation.published import ALEXNET, alexnet
from ..evaluation.results import build_models, cell_to_dict, shift_of
from ..evaluation.results_folder import ResultsFolder
from ..evaluation.scoring import build_scorer
from ..evaluation.shared_set import SharedSet, build_shared_set
from ..evaluation.summary import SEVERITIES, benchmark_corruptions
from ..registration import mmpretrain_works
from .building import build_dense, read_config
from .loading import load_checkpoint_dict, read_checkpoint
from .robustness_costs import measure_costs

FORMAT = 1
EXAMPLES = 6
"""Images whose detections are kept for a report."""
CONFIG_KEYS = ('model', 'data_preprocessor', 'test_evaluator', 'test_cfg')
LOADING_KEYS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'timeout')
"""Of a test_dataloader what changes no figure."""


class UnreadableImages(ValueError):
    """Raised at the end of a run that had to leave images out.

    Attributes:
        results (dict): What results.json says.
    """

    def __init__(self, message: str, results: dict) -> None:
        super().__init__(message)
        self.results = results


class OtherRankFailed(RuntimeError):
    """Raised in the processes that were all right when rank 0 was not."""


class ModelSource(NamedTuple):
    """A model to test: what to call it, its config and its checkpoint, dense or pruned."""

    name: str
    config: str
    checkpoint: str


class Progress(NamedTuple):
    """What a run tells while it runs.

    Attributes:
        start (Callable): Called with the number of images of all cells in this process, and of
            those that were tested before.
        images (Callable): Called with a number of images that were tested.
        say (Callable): Called with a line of text.
    """

    start: Callable[[int, int], object] = lambda total, done: None
    images: Callable[[int], object] = lambda count: None
    say: Callable[[str], object] = lambda line: None


def evaluate_robustness(
    sources: Sequence[ModelSource],
    out: str | Path,
    *,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    subset: int | None = None,
    seed: int = 0,
    mode: str = 'fast',
    resamples: int = 1000,
    batch_size: int | None = None,
    workers: int = 0,
    device: str = 'cpu',
    reference: str | None = None,
    metric: str | None = None,
    partial: bool = False,
    shifts: Mapping[str, dict] | None = None,
    published: Mapping | None = None,
    cfg_options: dict | None = None,
    progress: Progress | None = None,
) -> dict | None:
    """Test models clean and under corruptions; each corrupted image is made once for all of them.

    After each cell what is known is on the disk; the same call goes on from there. In several
    processes each takes some of the batches, and rank 0 writes.

    Args:
        sources (Sequence[ModelSource]): The models, by different names.
        out (str | Path): Folder for results.json and cells/, which
            :mod:`mmdet_adasap.evaluation.results` describes.
        corruptions (Sequence[str], optional): Defaults to the benchmark's.
        severities (Sequence[int]): Defaults to 1 to 5.
        subset (int, optional): Number of images, always the same ones. Defaults to all.
        seed (int): Of corruptions and bootstrap. Defaults to 0.
        mode (str): Of the corruptions: 'fast', or 'exact' for the draws of the published code.
            Defaults to 'fast'.
        resamples (int): Of the bootstrap over images; 0 for none. Defaults to 1000.
        batch_size (int, optional): Defaults to the smallest of the configs' test_dataloaders.
        workers (int): Processes that load and corrupt. Defaults to 0.
        device (str): Where the models run. Defaults to 'cpu'.
        reference (str, optional): Model that mCE and differences refer to. Defaults to the first,
            and for mCE on ImageNet's classes to AlexNet's published errors.
        metric (str, optional): Name of P among the metrics, where it is not the task's usual one.
        partial (bool): Whether to give means while cells are missing. Defaults to False.
        shifts (Mapping[str, dict], optional): Other test sets of the same classes, as
            ``{'imagenet-v2': dict(type='ImageNetV2', data_root=...)}``: what configs say of a
            dataset, without its pipeline, which is that of the test_dataloader.
        published (Mapping, optional): A set to read corrupted images from instead of computing
            them: ``dict(type='ImageNetC', data_root=...)`` or ``CIFAR10C``.
        cfg_options (dict, optional): Settings of all configs to override.
        progress (Progress, optional): What to call on the way.

    Returns:
        dict | None: What results.json says; None in processes other than rank 0.

    Raises:
        ProtocolDiffers: If the folder holds results of other settings.
        UnreadableImages: At the end, if images could not be read.
        ValueError, OSError: If a setting, a config, a checkpoint or a file is wrong.
        ModelFailed: If a model fails on images.
    """
    progress = progress or Progress()
    names = [source.name for source in sources]
    conditions = _conditions(corruptions, severities)
    check_mode(mode)
    if not published and any(condition.corruption == 'frost' for condition in conditions):
        check_frost_photos()
    _check_reference(names, reference)
    configs = {source.name: _config(source.config, cfg_options) for source in sources}
    progress.say('reading the test set')
    init_default_scope(configs[names[0]].get('default_scope', 'mmengine'))
    shared = build_shared_set(
        {name: config.test_dataloader for name, config in configs.items()},
        subset,
        seed,
        mode=mode,
        published=published,
    )
    if published:
        shared.images.check(conditions)
    subjects = []
    for source, view in zip(sources, shared.views, strict=True):
        progress.say(f'loading {source.name} from {source.checkpoint}')
        subjects.append(_subject(source, configs[source.name], view, shared, device, metric))
    keys = {subject.scorer.key for subject in subjects}
    if len(keys) > 1:
        raise ValueError(f'the configs measure {", ".join(sorted(keys))}, which do not compare')
    size = batch_size or min(
        config.test_dataloader.get('batch_size', 1) for config in configs.values()
    )
    drawn = resamples if all(subject.scorer.resamples for subject in subjects) else 0
    if drawn < resamples:
        progress.say(f'{keys.pop()} of this metric has no confidence intervals')
    shifted = _shifted(shifts or {}, configs, shared, subset)
    protocol = {
        'format': FORMAT,
        'metric': subjects[0].scorer.key,
        'corruptions': list(dict.fromkeys(c.corruption for c in conditions if c != CLEAN)),
        'severities': list(dict.fromkeys(c.severity for c in conditions if c != CLEAN)),
        'seed': seed,
        'mode': 'published' if published else mode,
        'subset': subset,
        'dataset': shared.described,
        'batch_size': size,
        'device': _device_name(device),
        'bootstrap': {
            'resamples': drawn,
            'seed': seed,
            'interval': '1.96 standard errors',
        },
        'models': {
            source.name: {
                'config_sha256': _digest_of_config(configs[source.name]),
                'checkpoint_sha256': digest_of_file(source.checkpoint),
            }
            for source in sources
        },
        'versions': versions(),
    }
    if shifted:
        protocol['shifts'] = {
            condition.corruption: s.described for condition, s in shifted.items()
        }
    first = reference or names[0]
    compared = _Compared(first, reference or _errors_of(subjects[0], shared) or first)
    run = _Run(sources, subjects, shared, shifted, conditions, protocol, compared, partial)
    return run.run(out, size, workers, drawn, seed, progress)


class _Compared(NamedTuple):
    """What differences refer to, and what mCE: models by their names, or AlexNet."""

    reference: str
    errors: str


class _Run:
    """The cells of a run and what is written about them."""

    def __init__(
        self,
        sources: Sequence[ModelSource],
        subjects: list[Subject],
        shared: SharedSet,
        shifted: dict[Condition, SharedSet],
        conditions: list[Condition],
        protocol: dict,
        compared: _Compared,
        partial: bool,
    ) -> None:
        self.sources, self.subjects, self.shared = sources, subjects, shared
        self.conditions, self.shifted, self.protocol = conditions, shifted, protocol
        self.compared, self.partial = compared, partial
        self.rank, self.processes = get_dist_info()
        self.folder: ResultsFolder | None = None

    def run(
        self,
        out: str | Path,
        batch_size: int,
        workers: int,
        resamples: int,
        seed: int,
        progress: Progress,
    ) -> dict | None:
        every = [*self.conditions, *self.shifted]
        with self._on_rank_0() as left:
            if self.rank == 0:
                self.folder = ResultsFolder(out, self.protocol)
                self.costs = self._costs(progress)
                left += [c for c in every if c not in self.folder.cells]
                self.folder.write(self.results())
        progress.start(self._count(every), self._count(every) - self._count(left))
        jobs = [(self.shared, [c for c in left if c in self.conditions], self._examples())]
        jobs += [(shared, [c], []) for c, shared in self.shifted.items() if c in left]
        for shared, conditions, examples in jobs:
            images = shared.images
            found = evaluate_cells(
                self.subjects,
                images,
                # Another set is tested as it is.
                conditions if shared is self.shared else [CLEAN],
                shared.collate,
                batch_size,
                workers,
                image_weights(len(images), resamples, seed) if resamples else None,
                examples,
                progress.images,
            )
            for condition, cell in zip(conditions, found, strict=True):
                if cell is not None:
                    self._keep(condition, cell)
        if self.rank != 0:
            return None
        self.folder.close()
        results = self.results()
        self._refuse_unreadable(results)
        return results

    def _count(self, conditions: Sequence[Condition]) -> int:
        """Images of this process under all of them."""
        sets = [self.shifted.get(condition, self.shared) for condition in conditions]
        return sum(len(shared.images) // self.processes for shared in sets)

    def _keep(self, condition: Condition, cell: Cell) -> None:
        cell.condition = condition
        self.folder.add(condition, cell_to_dict(cell))
        self.folder.write(self.results())

    @contextlib.contextmanager
    def _on_rank_0(self) -> Iterator[list]:
        """Let an error of rank 0 end all processes, and give them what it put into the list."""
        left, failure = [], None
        try:
            yield left
        except Exception as error:
            failure = error
        box = [list(left), failure and f'{type(failure).__name__}: {failure}']
        broadcast_object_list(box)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise OtherRankFailed(f'rank 0 has stopped with {box[1]}')
        left[:] = box[0]

    def _costs(self, progress: Progress) -> dict:
        costs = self.folder.kept('costs')
        if costs is None:
            progress.say('measuring what the models cost')
            costs = measure_costs(self.subjects, self.shared)
            self.folder.keep('costs', costs)
        return costs

    def _examples(self) -> list[int]:
        ids = self.shared.ids
        return choose_subset(ids, min(EXAMPLES, len(ids)))

    def results(self) -> dict:
        """What results.json says."""
        cells = self.folder.cells
        names = [source.name for source in self.sources]
        reference, errors = self.compared
        published = alexnet if errors == ALEXNET else None
        models = build_models(cells, names, self.conditions, reference, self.partial, published)
        for name, model in models.items():
            model['shifts'] = {
                condition.corruption: shift_of(cells[condition], cells[CLEAN], name)
                for condition in self.shifted
                if condition in cells
            }
        return {
            'protocol': self.protocol,
            'reference': reference,
            'mCE_reference': errors,
            'finished': all(c in cells for c in [*self.conditions, *self.shifted]),
            'models': {
                source.name: {
                    'config': source.config,
                    'checkpoint': source.checkpoint,
                    **models[source.name],
                    'cost': self.costs.get(source.name),
                }
                for source in self.sources
            },
            'classes': list(self.shared.metainfo.get('classes') or ()),
            'examples': [self._example(number) for number in self._examples()],
            'unreadable': self._unreadable(),
            'times': _total_times(cells, names),
        }

    def _example(self, number: int) -> dict:
        info = self.shared.images.info(number)
        truth = info.get('instances') or []
        return {
            'number': number,
            'img_id': info.get('img_id'),
            'img_path': info.get('img_path'),
            'ground_truth': {
                'bboxes': [[float(x) for x in one['bbox']] for one in truth if 'bbox' in one],
                'labels': [one['bbox_label'] for one in truth if 'bbox_label' in one],
            },
        }

    def _unreadable(self) -> list[dict]:
        """Those of all cells, by their names."""
        found = {
            one['image']: one for cell in self.folder.cells.values() for one in cell['unreadable']
        }
        return [found[image] for image in sorted(found)]

    def _refuse_unreadable(self, results: dict) -> None:
        if not results['unreadable']:
            return
        cells = [self.folder.cells[condition] for condition in self.conditions]
        images = [{one['image'] for one in cell['unreadable']} for cell in cells]
        alike = all(each == images[0] for each in images)
        first = results['unreadable'][0]
        raise UnreadableImages(
            f'{len(results["unreadable"])} of {len(self.shared.images)} images could not be read '
            f'and are in no figure of {"" if alike else "some of the cells in "}'
            f'{self.folder.folder}/results.json, which names them: {first["image"]} '
            f'({first["error"]}); repair them and run the same again, which tests those cells '
            f'anew',
            results,
        )


def _conditions(corruptions: Sequence[str] | None, severities: Sequence[int]) -> list[Condition]:
    """Clean images, then all corruptions at one severity after the other.

    In that order the first cells cost on average what all do, so the time to go is true early.
    """
    names = list(dict.fromkeys(benchmark_corruptions() if corruptions is None else corruptions))
    levels = sorted(set(severities))
    for name in names:
        for severity in levels:
            check_condition(name, severity)
    if not names or not levels:
        raise ValueError('corruptions and severities: name at least one of each')
    return [CLEAN, *(Condition(name, severity) for severity in levels for name in names)]


def _shifted(
    shifts: Mapping[str, dict],
    configs: Mapping[str, Config],
    shared: SharedSet,
    subset: int | None,
) -> dict[Condition, SharedSet]:
    """The other test sets, prepared as each config prepares its own."""
    found = {}
    for name, dataset in shifts.items():
        loaders = {}
        for model, config in configs.items():
            loader = config.test_dataloader
            _, pipeline = without_pipeline(loader.dataset.to_dict())
            loaders[model] = {**loader.to_dict(), 'dataset': {**dataset, 'pipeline': pipeline}}
        other = build_shared_set(loaders, subset, key=name)
        if other.metainfo.get('classes') != shared.metainfo.get('classes'):
            raise ValueError(
                f'{name} has other classes than the test set: test it with a config for them'
            )
        found[Condition(name, 0)] = other
    return found


def _errors_of(subject: Subject, shared: SharedSet) -> str | None:
    """AlexNet for what its published errors are about: top 1 on the classes of ImageNet."""
    if subject.scorer.key != 'accuracy/top1' or not mmpretrain_works():
        return None
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    return ALEXNET if tuple(shared.metainfo['classes']) == tuple(IMAGENET_CATEGORIES) else None


def _check_reference(names: Sequence[str], reference: str | None) -> None:
    if not names:
        raise ValueError('name at least one checkpoint')
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise ValueError(
            f'two models are called {min(double)}; call them differently, as NAME=CHECKPOINT'
        )
    if reference is not None and reference not in names:
        raise ValueError(f'reference={reference} is none of the models {", ".join(names)}')


def _config(name: str, options: dict | None) -> Config:
    config = read_config(name)
    if options:
        config.merge_from_dict(options)
    for key in ('test_dataloader', 'test_evaluator'):
        if not config.get(key):
            raise ValueError(f'{name}: {key} is missing; give the config that test.py takes')
    return config


def _subject(
    source: ModelSource,
    config: Config,
    view: int,
    shared: SharedSet,
    device: str,
    metric: str | None,
) -> Subject:
    found = read_checkpoint(source.checkpoint)
    model = build_dense(config)
    try:
        load_checkpoint_dict(model, found, source.checkpoint)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'{source.name}: {error}') from error
    _check_classes(source, getattr(model, 'dataset_meta', None) or {}, shared.metainfo)
    scorer = build_scorer(config.test_evaluator, shared.metainfo, metric)
    fp16 = bool((config.get('test_cfg') or {}).get('fp16', False))
    return Subject(source.name, model.to(device).eval(), scorer, view, fp16)


def _check_classes(source: ModelSource, trained: dict, tested: dict) -> None:
    """Refuse a model that was trained for other classes than the dataset has."""
    theirs, ours = (tuple(meta.get('classes') or ()) for meta in (trained, tested))
    if theirs and ours and theirs != ours:
        apart = next(
            (pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]), None
        )
        what = f'{apart[0]!r} is {apart[1]!r} there' if apart else 'some are missing'
        raise ValueError(
            f'{source.name}: {source.checkpoint} was trained for {len(theirs)} classes and the '
            f'test set has {len(ours)} ({what}); use the config that it was trained with'
        )


def _digest_of_config(config: Config) -> str:
    """Of what its figures depend on; the images have a digest of their own."""
    loader = {k: v for k, v in config.test_dataloader.to_dict().items() if k not in LOADING_KEYS}
    loader['dataset'] = {k: v for k, v in loader['dataset'].items() if k != 'data_root'}
    return digest({**{key: config.get(key) for key in CONFIG_KEYS}, 'test_dataloader': loader})


def _device_name(device: str) -> str:
    if device.startswith('cuda'):
        import torch

        return torch.cuda.get_device_name(device)
    return device


def _total_times(cells: dict, names: Sequence[str]) -> dict:
    seconds = [cell['seconds'] for cell in cells.values()]
    return {
        'images': float(np.sum([each['images'] for each in seconds])),
        **{
            what: {name: float(np.sum([each[what][name] for each in seconds])) for name in names}
            for what in ('forward', 'scoring')
        },
    }
