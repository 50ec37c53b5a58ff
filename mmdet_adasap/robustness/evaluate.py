# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..integration.configs import without_pipeline
from .corruptions import check_condition, check_frost_photos, check_mode
from .datasets.multi_view import CLEAN, Condition
from .datasets.published import restrict_to_labels
from .engine import EvaluatedModel
from .metrics.mpc import ALEXNET, SEVERITIES, benchmark_corruptions
from .models import ModelSource, digest_of_config, load_subject, read_test_config
from .protocol import FORMAT, digest_of_file, versions
from .run import Compared, Progress, Run
from .shifted_sets import NAME
from .test_set import TestSet, build_test_set


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
    scale: float | None = None,
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
            :mod:`mmdet_adasap.robustness.results` describes.
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
        scale (float, optional): What that figure is multiplied with to be a fraction.
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
        ProtocolMismatchError: If the folder holds results of other settings.
        UnreadableImagesError: At the end, if images could not be read.
        ValueError, OSError: If a setting, a config, a checkpoint or a file is wrong.
        ModelFailedError: If a model fails on images.
    """
    progress = progress or Progress()
    names = [source.name for source in sources]
    conditions = _conditions(corruptions, severities)
    check_mode(mode)
    if not published and any(condition.corruption == 'frost' for condition in conditions):
        check_frost_photos()
    _check_reference(names, reference)
    configs = {source.name: read_test_config(source.config, cfg_options) for source in sources}
    progress.say('reading the test set')
    init_default_scope(configs[names[0]].get('default_scope', 'mmengine'))
    shared = build_test_set(
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
        subjects.append(
            load_subject(source, configs[source.name], view, shared, device, metric, scale)
        )
    keys = {subject.adapter.key for subject in subjects}
    if len(keys) > 1:
        raise ValueError(f'the configs measure {", ".join(sorted(keys))}, which do not compare')
    size = batch_size or min(
        config.test_dataloader.get('batch_size', 1) for config in configs.values()
    )
    drawn = resamples if all(subject.adapter.resamples for subject in subjects) else 0
    if drawn < resamples:
        progress.say(f'{keys.pop()} of this metric has no confidence intervals')
    shifted = _shifted(shifts or {}, configs, shared, subset)
    protocol = {
        'format': FORMAT,
        'metric': subjects[0].adapter.key,
        **({} if scale is None else {'scale': scale}),
        'corruptions': list(dict.fromkeys(c.corruption for c in conditions if c != CLEAN)),
        'severities': list(dict.fromkeys(c.severity for c in conditions if c != CLEAN)),
        'seed': seed,
        'mode': 'published' if published else mode,
        **({'published': _plain(published)} if published else {}),
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
                'config_sha256': digest_of_config(configs[source.name]),
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
    compared = Compared(first, reference or _errors_of(subjects[0], shared) or first)
    run = Run(sources, subjects, shared, shifted, conditions, protocol, compared, partial)
    return run.run(out, size, workers, drawn, seed, progress)


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
    shared: TestSet,
    subset: int | None,
) -> dict[Condition, TestSet]:
    """The other test sets, prepared as each config prepares its own."""
    found = {}
    for name, dataset in shifts.items():
        # Of a part of the classes, R is the share of what they are recognised with.
        if shared.labels:
            dataset = restrict_to_labels(dataset, shared.labels)
        if not NAME.fullmatch(name) or name == CLEAN.corruption:
            raise ValueError(
                f'shifts: {name!r} is no name for a set: use letters, digits, dots and dashes, '
                f'beginning with a letter or digit, and not {CLEAN.corruption!r}'
            )
        loaders = {}
        for model, config in configs.items():
            loader = config.test_dataloader
            _, pipeline = without_pipeline(loader.dataset.to_dict())
            loaders[model] = {**loader.to_dict(), 'dataset': {**dataset, 'pipeline': pipeline}}
        try:
            other = build_test_set(loaders, subset, key=name, fewer=True)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        if other.metainfo.get('classes') != shared.metainfo.get('classes'):
            raise ValueError(
                f'{name} has other classes than the test set: test it with a config for them'
            )
        found[Condition(name, 0)] = other
    return found


def _plain(published: Mapping) -> dict:
    """The published set as the protocol names it: other files there make another run."""
    root = Path(published.get('data_root', '')).expanduser().resolve()
    return {**published, 'data_root': str(root)}


def _errors_of(subject: EvaluatedModel, shared: TestSet) -> str | None:
    """AlexNet for what its published errors are about: top 1 on the classes of ImageNet."""
    if subject.adapter.key != 'accuracy/top1' or 'mmpretrain' not in sys.modules:
        return None
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    classes = tuple(shared.metainfo.get('classes') or ())
    return ALEXNET if classes == tuple(IMAGENET_CATEGORIES) else None


def _check_reference(names: Sequence[str], reference: str | None) -> None:
    if not names:
        raise ValueError('name at least one checkpoint')
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise ValueError(
            f'two models are called {min(double)}; call them differently, as NAME=CHECKPOINT'
        )
    if ALEXNET in names:
        raise ValueError(f'a model is called {ALEXNET}, as the published figures are: rename it')
    if reference is not None and reference not in names:
        raise ValueError(f'reference={reference} is none of the models {", ".join(names)}')


def _device_name(device: str) -> str:
    if device.startswith('cuda'):
        import torch

        return torch.cuda.get_device_name(device)
    return device
