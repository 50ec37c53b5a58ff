# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# AdaSAP from the checkpoint of dense_yolox_tiny-voc.py to half of the parameters.
_base_ = './dense_yolox_tiny-voc.py'

load_from = 'work_dirs/dense_yolox_tiny-voc/epoch_60.pth'

max_epochs = 37  # of 13 iterations: 65 of warm-up, 117 of pruning, 299 of fine-tuning
train_cfg = dict(max_epochs=max_epochs, val_interval=14)  # the cut comes after 14
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-4,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(type='AdaSAPOptimWrapper', optimizer=dict(lr=0.01))
default_hooks = dict(
    checkpoint=dict(interval=5),
    adasap=dict(
        type='AdaSAPHook',
        warmup=5,
        prune=9,
        # The loss ratio is about 1.3 with these radii, early and late.
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.005, rho_max=0.5, scope='layer', asam=True
        ),
        target=dict(params=0.5),
        importance=dict(type='TaylorImportance'),
        interval=13,
        schedule='exponential',
        round_to=4,
        # No layer has to stay: where a shortcut does the work, Taylor takes nearly all of a block.
        max_pruning_ratio=1.0,
        finetune=dict(
            type='UniformPerturbation', rho=0.25, scope='layer', asam=True, parameters='weights'
        ),
    ),
)
