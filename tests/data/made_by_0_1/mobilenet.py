_base_ = './classifier.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV1',
        widen_factor=0.005,  # 8 channels everywhere
        # Of few channels no other is dead; GN is smaller in a file than BN.
        act_cfg=dict(type='LeakyReLU', negative_slope=0.5),
        norm_cfg=dict(type='GN', num_groups=2),
    )
)
