# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The arms of study.py: what is done between the dense checkpoint and the slim model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mmengine.config import Config

TWO_PASSES = 2.0
"""Time of a two-pass step over that of a plain one, to which the lengths of other arms are fitted.
tools/benchmarks/sharpness_step.py measures it."""


class Arm(NamedTuple):
    """A way to train.

    Attributes:
        change (Callable): Changes AdaSAP's config of a set.
        says (str): What it is, in a few words.
        cost (float): Time of a step over that of a plain one.
        equal_time (bool): Whether it trains as long as an arm with two passes, with more epochs;
            else it takes as many epochs.
    """

    change: Callable[[Config], None]
    says: str
    cost: float = TWO_PASSES
    equal_time: bool = False


def perturb(cfg: Config, **changes: dict | None) -> None:
    """Replace ``perturbation`` and ``finetune`` of the hook."""
    for key, value in changes.items():
        cfg.default_hooks.adasap[key] = value


def uniform(rho: float, asam: bool, **more) -> dict:
    """Return the settings of a UniformPerturbation over the weights of a layer."""
    return dict(
        type='UniformPerturbation',
        rho=rho,
        scope='layer',
        asam=asam,
        parameters='weights',
        **more,
    )


def _plain(cfg: Config) -> None:
    perturb(cfg, perturbation=None, finetune=None)


def _radius(cfg: Config) -> float:
    """Return the radius of fine-tuning, to which those of controls are in proportion."""
    return cfg.default_hooks.adasap.finetune.rho


def _sam(cfg: Config) -> None:
    # The proportions of configs/_base_/control_sam.py: the loss rises as with AdaSAP's radii.
    rho = 0.08 * _radius(cfg)
    perturb(cfg, perturbation=uniform(2 * rho, False), finetune=uniform(rho, False))


def _asam(cfg: Config) -> None:
    rho = _radius(cfg)
    perturb(cfg, perturbation=uniform(2 * rho, True), finetune=uniform(rho, True))


def _published(cfg: Config) -> None:
    globally = dict(scope='global', asam=True)
    perturb(
        cfg,
        perturbation=dict(type='AdaptivePerturbation', rho_min=0.01, rho_max=2.0, **globally),
        finetune=dict(type='UniformPerturbation', rho=1.0, parameters='weights', **globally),
    )


def _ratio(wanted: float) -> Callable[[Config], None]:
    def change(cfg: Config) -> None:
        for key in ('perturbation', 'finetune'):
            cfg.default_hooks.adasap[key].loss_ratio = wanted

    return change


def _wrapper(**options) -> Callable[[Config], None]:
    def change(cfg: Config) -> None:
        cfg.optim_wrapper.update(options)

    return change


ARMS = {
    'plain': Arm(_plain, 'one pass a step', 1.0),
    'plain, equal time': Arm(_plain, 'the same, twice the epochs', 1.0, True),
    'SAM': Arm(_sam, 'one radius for all, not scaled by |w|'),
    'ASAM': Arm(_asam, 'one radius for all'),
    'AdaSAP': Arm(lambda cfg: None, 'radii by importance, then one radius'),
    'AdaSAP, published radii': Arm(_published, '0.01 to 2.0 of all weights together'),
    'AdaSAP, ratio 1.1': Arm(_ratio(1.1), 'radii such that the loss rises by a tenth'),
    'AdaSAP, ratio 1.3': Arm(_ratio(1.3), 'radii such that the loss rises by 0.3'),
    'AdaSAP, every 2nd': Arm(_wrapper(every=2), 'two passes in each second step', 1.5, True),
    'AdaSAP, every 5th': Arm(_wrapper(every=5), 'two passes in each fifth step', 1.2, True),
    'AdaSAP, momentum': Arm(_wrapper(direction='momentum'), 'ε by the momentum', 1.1, True),
    'AdaSAP, previous': Arm(_wrapper(direction='previous'), 'ε by the gradient before', 1.1, True),
}
"""By their names in the tables."""


def config_of(base: Config, arm: Arm) -> Config:
    """Return the config of an arm.

    Args:
        base (Config): AdaSAP's config of the set.
        arm (Arm): The arm.
    """
    cfg = Config(base.to_dict())
    arm.change(cfg)
    if arm.equal_time:
        stretch(cfg, TWO_PASSES / arm.cost)
    return cfg


def stretch(cfg: Config, factor: float) -> None:
    """Multiply the epochs of all phases, and the interval, so that as many events prune.

    Args:
        cfg (Config): A config whose phases count epochs; changed in place.
        factor (float): By how much.
    """
    hook, epochs = cfg.default_hooks.adasap, round(cfg.train_cfg.max_epochs * factor)
    hook.warmup, hook.prune = round(hook.warmup * factor), round(hook.prune * factor)
    hook.interval = round(hook.interval * factor)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    schedulers = cfg.param_scheduler
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.type == 'CosineAnnealingLR':
            scheduler.update(end=epochs, T_max=epochs)
