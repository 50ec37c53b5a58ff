# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# mmdet's dense Faster R-CNN: the start of adasap_faster-rcnn_r50_fpn_1x_voc0712.py.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
# So that a pruned checkpoint is refused here; mmdet alone would test random weights.
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
