# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# AdaSAP from the checkpoint of dense_resnet18_tiny-imagenet.py to half of the parameters; the demo
# also goes to a quarter, with --cfg-options default_hooks.adasap.target.params=0.25.
_base_ = './dense_resnet18_tiny-imagenet.py'

load_from = 'work_dirs/dense_resnet18_tiny-imagenet/epoch_9.pth'

max_epochs = 2  # of 75 iterations: 24 of warm-up, 45 of pruning, 81 of fine-tuning
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
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
optim_wrapper = dict(type='AdaSAPOptimWrapper', optimizer=dict(lr=0.1))
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook',
        by_epoch=False,
        warmup=24,
        prune=45,
        # Half of the radii of _base_/adasap.py: the best of a quarter, a half and all of them on
        # the validation images, with another seed than the demo's.
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.002, rho_max=0.2, scope='layer', asam=True
        ),
        target=dict(params=0.5),
        importance=dict(type='TaylorImportance'),
        interval=9,
        schedule='exponential',
        round_to=4,
        # No layer has to stay: where a shortcut does the work, Taylor takes nearly all of a block.
        max_pruning_ratio=1.0,
        finetune=dict(
            type='UniformPerturbation', rho=0.05, scope='layer', asam=True, parameters='weights'
        ),
    ),
)
