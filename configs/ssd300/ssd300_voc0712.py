# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# mmdet's dense SSD300, able to predict: the start of adasap_ssd300_voc0712.py.
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
