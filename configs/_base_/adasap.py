# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# The settings of AdaSAPHook that all detectors and classifiers share. A model's file adds its
# phases, target and interval:
#
#   _base_ = ['./ssd300_voc0712.py', '../_base_/adasap.py']
#   optim_wrapper = dict(type='AdaSAPOptimWrapper')
#   default_hooks = dict(adasap=dict(_base_.adasap, warmup=2, prune=8, ...))
#
# They are a variable because two bases may not share a key, and mmdet's have default_hooks.
# Options come after it has been copied: --cfg-options default_hooks.adasap.interval=8.
#
# Its four controls differ from it in perturbation and finetune alone: control_plain.py,
# control_sam.py, control_asam.py and control_adaptive.py.
adasap = dict(
    type='AdaSAPHook',
    # Phases 1 and 2: adaptive radii. The paper's are likely 0.01 to 2.0, over what norm is not
    # known; over this one 2.0 multiplies the loss. These raise it by a third or so.
    perturbation=dict(
        type='AdaptivePerturbation', rho_min=0.004, rho_max=0.4, scope='layer', asam=True
    ),
    # Magnitudes are the paper's, and empty the narrow layers of networks that were not trained for
    # long: docs/criteria.md compares.
    importance=dict(type='TaylorImportance'),
    schedule='exponential',
    round_to=8,
    max_pruning_ratio=0.9,
    # Phase 3: one radius.
    finetune=dict(
        type='UniformPerturbation', rho=0.1, scope='layer', asam=True, parameters='weights'
    ),
)
