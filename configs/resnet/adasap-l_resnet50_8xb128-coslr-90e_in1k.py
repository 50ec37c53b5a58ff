# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-50 at 0.6 of its latency on one thread of this machine with onnxruntime. Times it first:
#   mkdir -p work_dirs/latency
#   adasap latency configs/resnet/resnet50_8xb128-coslr-90e_in1k.py \
#       --out work_dirs/latency/resnet50_8xb128-coslr-90e_in1k.json
# Widths are a multiple of the device's step, and each layer loses the same share of its channels,
# the best choice at equal time (docs/criteria.md). All else is as for parameters.
_base_ = './adasap_resnet50_8xb128-coslr-90e_in1k.py'

default_hooks = dict(
    adasap=dict(
        target=dict(
            _delete_=True,
            latency=0.6,
            table='work_dirs/latency/resnet50_8xb128-coslr-90e_in1k.json',
        ),
        round_to=None,
        importance=dict(_delete_=True, type='UniformWidth'),
    )
)
