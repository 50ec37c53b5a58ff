# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# AdaSAP from the checkpoint of dense_resnet18_cifar10.py to half of the parameters.
_base_ = './dense_resnet18_cifar10.py'

load_from = 'work_dirs/dense_resnet18_cifar10/epoch_30.pth'

max_epochs = 16  # of 79 iterations: 158 of warm-up, 316 of pruning, 790 of fine-tuning
train_cfg = dict(max_epochs=max_epochs, val_interval=16)
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    eta_min=1e-4,
    begin=0,
    end=max_epochs,
    T_max=max_epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
optim_wrapper = dict(type='AdaSAPOptimWrapper', optimizer=dict(lr=0.02))
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook',
        warmup=2,
        prune=4,
        # The radii of the demo.
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.002, rho_max=0.2, scope='layer', asam=True
        ),
        target=dict(params=0.5),
        importance=dict(type='TaylorImportance'),
        interval=39,
        schedule='exponential',
        round_to=4,
        max_pruning_ratio=1.0,
        finetune=dict(
            type='UniformPerturbation', rho=0.05, scope='layer', asam=True, parameters='weights'
        ),
    ),
)
