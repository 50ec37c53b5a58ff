# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The wrapper that a model has in a distributed run: which will do, and a new one after a cut."""

from mmengine.dist import get_world_size
from mmengine.model import MMSeparateDistributedDataParallel, is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from ..unwrapping import unwrapped


def check_wrapper(runner: Runner) -> None:
    """Refuse a run in several processes whose wrapper cannot follow a cut.

    Raises:
        ValueError: Naming the key to change.
    """
    model = runner.model
    if not is_model_wrapper(model):
        if get_world_size() > 1:
            raise ValueError(
                f'launcher={runner.launcher!r}: {get_world_size()} processes run, and each would '
                f'train a model of its own; start train.py with --launcher pytorch'
            )
        return
    name = type(model).__name__
    parallel = isinstance(model, DistributedDataParallel)
    if not parallel or isinstance(model, MMSeparateDistributedDataParallel):
        raise ValueError(
            f'model_wrapper_cfg: AdaSAPHook cuts the model in MMDistributedDataParallel or a '
            f'wrapper derived from it, and this run has {name}; leave out model_wrapper_cfg.type '
            f'(and the strategy of a FlexibleRunner)'
        )
    type_ = (runner.cfg.get('model_wrapper_cfg') or {}).get('type', 'MMDistributedDataParallel')
    expected = MODEL_WRAPPERS.get(type_) if isinstance(type_, str) else type_
    if not runner.distributed or type(model) is not expected:
        raise ValueError(
            f'launcher={runner.launcher!r}: the model came to the Runner in {name} already, which '
            f'has to be made anew after the cut; give the Runner the bare model, a launcher, and '
            f'model_wrapper_cfg for settings of the wrapper'
        )


def wrap_anew(runner: Runner) -> None:
    """Give a model that was cut a new distributed wrapper, as the Runner made the old one.

    The buckets of the old one, in which gradients are averaged, have the shapes before the cut.
    To be called in every process.
    """
    old = runner.model
    if not isinstance(old, DistributedDataParallel):
        return
    sync_bn = runner.cfg.get('sync_bn')
    if sync_bn is not None:  # the layers were converted when the Runner was built
        runner.cfg.sync_bn = None
    try:
        runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), unwrapped(old))
    finally:
        if sync_bn is not None:
            runner.cfg.sync_bn = sync_bn
    runner.model.training = old.training  # of the wrapper alone: frozen stages stay as they are
    for hook in runner.hooks:
        for key, value in vars(hook).items():
            if value is old:
                setattr(hook, key, runner.model)
