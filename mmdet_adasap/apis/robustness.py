# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.registry import init_default_scope

from ..datasets.corruptions import check_condition
from ..datasets.shared_images import CLEAN, Condition
from ..evaluation.bootstrap import image_weights
from ..evaluation.engine import Subject, evaluate_cells
from ..evaluation.protocol import choose_subset, digest, digest_of_file, versions
from ..evaluation.results import build_models, cell_to_dict
from ..evaluation.results_folder import ResultsFolder
from ..evaluation.scoring import build_scorer
from ..evaluation.shared_set import SharedSet, build_shared_set
from ..evaluation.summary import SEVERITIES, benchmark_corruptions
from .building import build_dense, read_config
from .loading import load_checkpoint_dict, read_checkpoint
from .robustness_costs import measure_costs

FORMAT = 1
EXAMPLES = 6
"""Images whose detections are kept for a report."""
CONFIG_KEYS = ('model', 'test_dataloader', 'test_evaluator', 'test_cfg')


class UnreadableImages(ValueError):
    """Raised at the end of a run that had to leave images out."""


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
    resamples: int = 1000,
    batch_size: int | None = None,
    workers: int = 0,
    device: str = 'cpu',
    reference: str | None = None,
    metric: str | None = None,
    partial: bool = False,
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
        resamples (int): Of the bootstrap over images; 0 for none. Defaults to 1000.
        batch_size (int, optional): Defaults to the smallest of the configs' test_dataloaders.
        workers (int): Processes that load and corrupt. Defaults to 0.
        device (str): Where the models run. Defaults to 'cpu'.
        reference (str, optional): Model that mCE and differences refer to. Defaults to the first.
        metric (str, optional): Name of P among the metrics, where it is not the task's usual one.
        partial (bool): Whether to give means while cells are missing. Defaults to False.
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
    reference = _checked_reference(names, reference)
    configs = {source.name: _config(source.config, cfg_options) for source in sources}
    progress.say('reading the test set')
    init_default_scope(configs[names[0]].get('default_scope', 'mmengine'))
    shared = build_shared_set(
        {name: config.test_dataloader for name, config in configs.items()}, subset, seed
    )
    subjects = []
    for source, view in zip(sources, shared.views, strict=True):
        progress.say(f'loading {source.name} from {source.checkpoint}')
        subjects.append(_subject(source, configs[source.name], view, shared, device, metric))
    keys = {subject.scorer.key for subject in subjects}
    if len(keys) > 1:
        raise ValueError(f'the configs measure {", ".join(sorted(keys))}, which do not compare')
    size = batch_size or min(config.test_dataloader.batch_size for config in configs.values())
    drawn = resamples if all(subject.scorer.resamples for subject in subjects) else 0
    if drawn < resamples:
        progress.say(f'{keys.pop()} of this metric has no confidence intervals')
    protocol = {
        'format': FORMAT,
        'metric': subjects[0].scorer.key,
        'corruptions': list(dict.fromkeys(c.corruption for c in conditions if c != CLEAN)),
        'severities': list(dict.fromkeys(c.severity for c in conditions if c != CLEAN)),
        'seed': seed,
        'mode': 'fast',
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
                'config_sha256': digest({k: configs[source.name].get(k) for k in CONFIG_KEYS}),
                'checkpoint_sha256': digest_of_file(source.checkpoint),
            }
            for source in sources
        },
        'versions': versions(),
    }
    run = _Run(sources, subjects, shared, conditions, protocol, reference, partial, progress)
    return run.run(out, size, workers, drawn, seed)


class _Run:
    """The cells of a run and what is written about them."""

    def __init__(
        self,
        sources: Sequence[ModelSource],
        subjects: list[Subject],
        shared: SharedSet,
        conditions: list[Condition],
        protocol: dict,
        reference: str,
        partial: bool,
        progress: Progress,
    ) -> None:
        self.sources, self.subjects, self.shared = sources, subjects, shared
        self.conditions, self.protocol = conditions, protocol
        self.reference, self.partial, self.progress = reference, partial, progress
        self.rank, self.processes = get_dist_info()
        self.folder: ResultsFolder | None = None
        self.unreadable: dict[str, dict] = {}

    def run(self, out: str | Path, batch_size: int, workers: int, resamples: int, seed: int):
        with self._on_rank_0() as left:
            if self.rank == 0:
                self.folder = ResultsFolder(out, self.protocol)
                self.costs = self._costs()
                left += [c for c in self.conditions if c not in self.folder.cells]
                self.folder.write(self.results())
        images = self.shared.images
        mine = len(images) // self.processes
        self.progress.start(mine * len(self.conditions), mine * (len(self.conditions) - len(left)))
        weights = image_weights(len(images), resamples, seed) if resamples else None
        found = evaluate_cells(
            self.subjects,
            images,
            left,
            self.shared.collate,
            batch_size,
            workers,
            weights,
            self._examples(),
            self.progress.images,
        )
        for condition, cell in zip(left, found, strict=True):
            if cell is None:
                continue
            for image in cell.unreadable:
                self.unreadable[image.image] = image._asdict()
            self.folder.add(condition, cell_to_dict(cell))
            self.folder.write(self.results())
        if self.rank != 0:
            return None
        self.folder.close()
        self._refuse_unreadable()
        return self.results()

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

    def _costs(self) -> dict:
        costs = self.folder.kept('costs')
        if costs is None:
            self.progress.say('measuring what the models cost')
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
        models = build_models(cells, names, self.conditions, self.reference, self.partial)
        return {
            'protocol': self.protocol,
            'reference': self.reference,
            'finished': all(condition in cells for condition in self.conditions),
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
            'unreadable': [self.unreadable[image] for image in sorted(self.unreadable)],
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

    def _refuse_unreadable(self) -> None:
        if not self.unreadable:
            return
        first = self.unreadable[min(self.unreadable)]
        raise UnreadableImages(
            f'{len(self.unreadable)} of {len(self.shared.images)} images could not be read and '
            f'are in no figure of {self.folder.folder}/results.json, which names them: '
            f'{first["image"]} ({first["error"]}); repair them and run the same again, which '
            f'tests those cells anew'
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


def _checked_reference(names: Sequence[str], reference: str | None) -> str:
    if not names:
        raise ValueError('name at least one checkpoint')
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise ValueError(
            f'two models are called {min(double)}; call them differently, as NAME=CHECKPOINT'
        )
    if reference is not None and reference not in names:
        raise ValueError(f'reference={reference} is none of the models {", ".join(names)}')
    return reference or names[0]


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
