# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Control: adaptive radii in every phase, where AdaSAP itself fine-tunes with one radius. Those of
# the last phase raise the loss as that one does, on the demo's dense detector. Look at loss_ratio
# in the log of yours.
control = dict(
    finetune=dict(
        _delete_=True,
        type='AdaptivePerturbation',
        rho_min=0.002,
        rho_max=0.2,
        scope='layer',
        asam=True,
    )
)
