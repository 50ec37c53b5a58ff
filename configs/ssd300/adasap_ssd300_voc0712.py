# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# SSD300 at 0.4 of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit, as mmdet does.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)

# A trained dense SSD300: what train.py leaves behind for ssd300_voc0712.py, or any checkpoint
# of it. Pruning begins within the first epochs, so a random or backbone-only start is too early.
load_from = 'ssd300_dense.pth'

# Two passes a step; optimizer and schedule stay the base's. It trains for 24 epochs and lowers
# the learning rate after 16 and 20. The cut comes after 2 + 8, so the slim model has 6 epochs at
# the full rate, in which it recovers, and both milestones. Keep them behind the cut.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook',
        warmup=2,
        prune=8,
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.004, rho_max=0.4, scope='layer', asam=True
        ),
        target=dict(params=0.4),
        importance=dict(type='MagnitudeImportance', p=2),
        interval=30,
        schedule='exponential',
        round_to=8,
        finetune=dict(
            type='UniformPerturbation', rho=0.1, scope='layer', asam=True, parameters='weights'
        ),
    )
)
