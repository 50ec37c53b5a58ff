# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The benchmark's entry from Python: models, conditions and settings in, results out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..integration import enter_scope
from .corruptions import check_frost_photos
from .engine import EvaluatedModel
from .evaluation_settings import EvaluationSettings
from .metrics import ALEXNET
from .models import ModelSource, digest_of_config, load_model, read_test_config
from .protocol import build_protocol, digest_of_file
from .run import Progress, Run
from .shifted_sets import build_shifted_sets
from .test_set import TestSet, build_test_set


def evaluate_robustness(
    sources: Sequence[ModelSource],
    out: str | Path,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> dict | None:
    """Test models clean and under corruptions; each corrupted image is made once for all of them.

    Each condition is written as soon as it is finished, so the same call resumes a run that was
    stopped. In several processes each takes some of the batches, and rank 0 writes.

    Args:
        sources (Sequence[ModelSource]): The models, by different names.
        out (str | Path): Folder for results.json and cells/, which
            :mod:`mmdet_adasap.robustness.results` describes.
        progress (Progress, optional): Functions to call on the way.
        **settings: Settings by name, as ``severities=(3,)`` or ``subset=500``; all of them are in
            :class:`~mmdet_adasap.robustness.evaluation_settings.EvaluationSettings`.

    Returns:
        dict | None: The content of results.json; None in processes other than rank 0.

    Raises:
        ProtocolMismatchError: If the folder has results of other settings.
        UnreadableImagesError: At the end, if images could not be read.
        TypeError: If there is no such setting, or one is of another type.
        ValueError, OSError: If a setting, a config, a checkpoint or a file is wrong.
        ModelFailedError: If a model fails on images.
    """
    settings = EvaluationSettings(**settings)
    progress = progress or Progress()
    # Before configs and checkpoints, which take longer to read.
    if settings.needs_frost_photos:
        check_frost_photos()
    _check_names([source.name for source in sources], settings.reference)
    configs, metrics = {}, {}
    for source in sources:
        if not Path(source.checkpoint).is_file():
            raise FileNotFoundError(
                f'{source.name}: {source.checkpoint} is no file; name the checkpoint to test'
            )
        configs[source.name], metrics[source.name] = read_test_config(
            source.config, settings.cfg_options, settings.metric
        )
    progress.say('reading the test set')
    # Names in configs are looked for in the library of the first one.
    enter_scope(configs[sources[0].name])
    test_set = build_test_set(
        {name: config.test_dataloader for name, config in configs.items()},
        settings.subset,
        settings.seed,
        mode=settings.mode,
        published=settings.published,
    )
    if test_set.remark:
        progress.say(test_set.remark)
    if settings.published:
        test_set.images.check(settings.conditions)
    models = []
    for source, view in zip(sources, test_set.views, strict=True):
        progress.say(f'loading {source.name} from {source.checkpoint}')
        name = source.name
        model = load_model(source, configs[name], view, test_set, settings, metrics[name])
        models.append(model)
    _say_what_was_not_taken(models[0], progress)
    protocol, shifted_sets = _build_protocol(
        sources, configs, models, test_set, settings, progress
    )
    return Run(sources, models, test_set, shifted_sets, settings, protocol, progress).run(out)


def _say_what_was_not_taken(evaluated: EvaluatedModel, progress: Progress) -> None:
    """Say that other metrics of the evaluator have a P as well, which --metric would take."""
    adapter = evaluated.adapter
    if adapter.others:
        progress.say(
            f'P is {adapter.key}, of the first metric of test_evaluator; name '
            f'{" or ".join(adapter.others)} with --metric for the others'
        )


def _check_names(names: Sequence[str], reference: str | None) -> None:
    """Raise ValueError if models have no names of their own, or the reference is none of them."""
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


def _build_protocol(
    sources: Sequence[ModelSource],
    configs: Mapping[str, Config],
    models: Sequence[EvaluatedModel],
    test_set: TestSet,
    settings: EvaluationSettings,
    progress: Progress,
) -> tuple[dict, dict]:
    """Return the protocol, and the shifted test sets that are part of it, by their conditions."""
    metrics = {evaluated.adapter.key for evaluated in models}
    if len(metrics) > 1:
        raise ValueError(f'the configs measure {", ".join(sorted(metrics))}, which do not compare')
    (metric,) = metrics
    # Differences between models need resamples of all of them.
    resamples = settings.resamples
    if not all(evaluated.adapter.resamples for evaluated in models):
        resamples = 0
    if resamples < settings.resamples:
        progress.say(f'{metric} of this metric has no confidence intervals')
    # All models share the batches, so the one with the least memory decides.
    batch_size = settings.batch_size or min(
        config.test_dataloader.get('batch_size', 1) for config in configs.values()
    )
    loaders = {name: config.test_dataloader for name, config in configs.items()}
    shifted_sets = build_shifted_sets(
        settings.shifted_sets or {}, loaders, test_set, settings.subset
    )
    protocol = build_protocol(
        settings,
        metric,
        batch_size,
        resamples,
        test_set.description,
        {condition.corruption: each.description for condition, each in shifted_sets.items()},
        {
            source.name: {
                'config_sha256': digest_of_config(configs[source.name]),
                'checkpoint_sha256': digest_of_file(source.checkpoint),
            }
            for source in sources
        },
    )
    return protocol, shifted_sets
