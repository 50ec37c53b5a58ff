# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# RetinaNet at half of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = 'mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)

# A trained dense RetinaNet: what train.py has left behind for the base config.
load_from = 'retinanet_r50_fpn_dense.pth'

# The base counts 4 epochs of three passes over the data and lowers the learning rate after 3:
# one epoch before the prune phase, one of pruning, then one at the full rate and one at a tenth.
# The first stage of the backbone is frozen there; what is frozen is never cut.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook',
        warmup=1,
        prune=1,
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.004, rho_max=0.4, scope='layer', asam=True
        ),
        target=dict(params=0.5),
        importance=dict(type='MagnitudeImportance', p=2),
        interval=100,
        schedule='exponential',
        round_to=8,
        finetune=dict(
            type='UniformPerturbation', rho=0.1, scope='layer', asam=True, parameters='weights'
        ),
    )
)
