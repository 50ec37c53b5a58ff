# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# AdaSAP at 0.6 of the network's latency on one thread of this machine with onnxruntime. Times it
# first:
#   mkdir -p work_dirs/latency
#   adasap latency configs/demo/dense_yolox_tiny-voc.py \
#       --out work_dirs/latency/dense_yolox_tiny-voc.json
# Widths are a multiple of the device's step, and each layer loses the same share of its channels,
# the best choice at equal time (docs/criteria.md). All else is as for parameters.
_base_ = './adasap_yolox_tiny-voc.py'

default_hooks = dict(
    adasap=dict(
        target=dict(
            _delete_=True, latency=0.6, table='work_dirs/latency/dense_yolox_tiny-voc.json'
        ),
        round_to=None,
        importance=dict(_delete_=True, type='UniformWidth'),
    )
)
