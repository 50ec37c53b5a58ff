# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Control: ASAM, one radius for all weights in every phase. It fine-tunes as AdaSAP does; before,
# its radius is such that the loss rises as with AdaSAP's, on the demo's dense detector. Look at
# loss_ratio in the log of yours.
control = dict(
    perturbation=dict(
        _delete_=True,
        type='UniformPerturbation',
        rho=0.2,
        scope='layer',
        asam=True,
        parameters='weights',
    )
)
