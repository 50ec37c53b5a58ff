# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Every detector that the README says can be pruned, from its config to a rebuilt slim model."""

import json
from pathlib import Path

import pytest

from _utils.run_model_case import check_choices, run_case

pytest.importorskip('mmdet')
ROOT = Path(__file__).parents[2]

# Config and side of the image.
QUICK = {
    'SSDLite-MobileNetV2': ('mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', 320),
    'Faster R-CNN': ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 256),
}
SLOW = {
    'YOLOv3-MobileNetV2': ('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', 320),
    'RTMDet-tiny': ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 256),
    'FCOS': ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 256),
    'SSD300': ('mmdet::pascal_voc/ssd300_voc0712.py', 300),
    'SSD512': ('mmdet::pascal_voc/ssd512_voc0712.py', 512),
    'SSD512-R50': (str(ROOT / 'configs/ssd512/ssd512_r50_8xb16-800e_voc0712.py'), 512),
    'YOLOv3-D53': ('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', 320),
    'YOLOX-nano': ('mmdet::yolox/yolox_nano_8xb8-300e_coco.py', 256),
    'YOLOX-tiny': ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 256),
    'YOLOX-s': ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 256),
    'YOLOX-l': ('mmdet::yolox/yolox_l_8xb8-300e_coco.py', 256),
    'RetinaNet': ('mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py', 256),
    'ATSS': ('mmdet::atss/atss_r50_fpn_1x_coco.py', 256),
    'Faster R-CNN C4': ('mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', 256),
    'Mask R-CNN': ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 256),
    'Cascade R-CNN': ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 256),
    'ResNeXt': ('mmdet::faster_rcnn/faster-rcnn_x101-32x4d_fpn_1x_coco.py', 256),
    'Res2Net': ('mmdet::res2net/faster-rcnn_res2net-101_fpn_2x_coco.py', 256),
    'RegNet': ('mmdet::regnet/faster-rcnn_regnetx-3.2GF_fpn_1x_coco.py', 256),
    'HRNet': ('mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', 256),
    'deformable': ('mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', 256),
    'modulated deformable': ('mmdet::dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py', 256),
}


@pytest.mark.long
@pytest.mark.parametrize(
    'name', [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_model(name, tmp_path, record_property):
    config, size = {**QUICK, **SLOW}[name]
    found = run_case(config, size, tmp_path)
    record_property('found', json.dumps(found))
    print(json.dumps({'model': name, **found}))
    check_choices(found['choices'])
    assert not any('refused' in choice for choice in found['choices'])
    assert found['pruned'] <= 1e-5
    assert found['two images'] <= 1e-5
    assert found['left'] <= 0.5
    assert found['whole'] == {}
    assert run_case(config, size, tmp_path, '--again')['again'] <= 1e-5
