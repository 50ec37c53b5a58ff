# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# AdaSAP from the checkpoint of dense_yolox_bccd.py to half of the parameters.
_base_ = './dense_yolox_bccd.py'

load_from = 'work_dirs/dense_yolox_bccd/epoch_50.pth'

max_epochs = 24  # of 13 iterations: 39 of warm-up, 78 of pruning, 195 of fine-tuning
train_cfg = dict(max_epochs=max_epochs, val_interval=24)
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
    checkpoint=dict(interval=6),
    adasap=dict(
        type='AdaSAPHook',
        warmup=3,
        prune=6,
        # The radii of the demo.
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.005, rho_max=0.5, scope='layer', asam=True
        ),
        target=dict(params=0.5),
        importance=dict(type='TaylorImportance'),
        interval=13,
        schedule='exponential',
        round_to=4,
        max_pruning_ratio=1.0,
        finetune=dict(
            type='UniformPerturbation', rho=0.25, scope='layer', asam=True, parameters='weights'
        ),
    ),
)
