# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Control: SAM, one radius for all weights. Where weights are not moved by their own size, radii
# are smaller: on the demo's dense detector these raise the loss as AdaSAP's do, phase by phase.
# Look at loss_ratio in the log of yours.
control = dict(
    perturbation=dict(
        _delete_=True,
        type='UniformPerturbation',
        rho=0.016,
        scope='layer',
        asam=False,
        parameters='weights',
    ),
    finetune=dict(rho=0.008, asam=False),
)
