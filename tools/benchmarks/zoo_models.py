# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The models of torchvision and timm that zoo.py looks at, with random weights, and inputs."""

from collections.abc import Callable

import torch
from torch import nn

SIDES = (64, 96, 128, 160, 192, 224, 240, 256, 299, 320, 384)
"""Sides of a square image in pixels, the smallest that a model takes is used."""

TIMM = (
    *('resnet18', 'resnet50', 'resnext50_32x4d', 'seresnet50', 'ecaresnet26t', 'resnetv2_50'),
    *(
        'res2net50_26w_4s',
        'resnest26d',
        'skresnet18',
        'regnetx_004',
        'regnety_004',
        'nf_regnet_b0',
    ),
    *('nfnet_f0', 'gernet_s', 'repvgg_a0', 'repghostnet_050', 'ghostnet_100', 'mobileone_s0'),
    *('mobilenetv2_050', 'mobilenetv3_small_075', 'mobilenetv4_conv_small', 'fbnetc_100'),
    *(
        'mnasnet_050',
        'efficientnet_b0',
        'tf_efficientnetv2_b0',
        'mixnet_s',
        'tinynet_e',
        'lcnet_050',
    ),
    *('hardcorenas_a', 'spnasnet_100', 'densenet121', 'dla34', 'dla46_c', 'hrnet_w18_small'),
    *('vgg11_bn', 'cspresnet50', 'cspdarknet53', 'vovnet39a', 'ese_vovnet19b_dw', 'selecsls42b'),
    *('xception41', 'inception_v3', 'inception_v4', 'inception_next_atto', 'convnext_atto'),
    *('convnextv2_atto', 'convmixer_768_32', 'fastvit_t8', 'mobilevit_xxs', 'mobilevitv2_050'),
    *('edgenext_xx_small', 'efficientformer_l1', 'efficientvit_b0', 'levit_128s', 'nextvit_small'),
    *('coatnet_nano_rw_224', 'maxvit_rmlp_pico_rw_256', 'swin_tiny_patch4_window7_224'),
    *('vit_tiny_patch16_224', 'mixer_s16_224', 'poolformer_s12', 'starnet_s1', 'rdnet_tiny'),
)
"""One or two of a family, small ones, of timm 1.0."""


def names(package: str) -> list[str]:
    """Return the models of a package.

    Args:
        package (str): 'torchvision' or 'timm'.
    """
    if package == 'timm':
        return list(TIMM)
    import torchvision
    from torchvision.models import list_models

    classifiers = list_models(module=torchvision.models)
    return [*classifiers, *list_models(module=torchvision.models.detection)]


def build(package: str, name: str) -> tuple[nn.Module, Callable[[nn.Module], object]]:
    """Build a model with random weights, and a function that runs it on an image of noise.

    Args:
        package (str): 'torchvision' or 'timm'.
        name (str): Name of the model there.

    Raises:
        ValueError: If it runs on no square image of :data:`SIDES`.
    """
    is_detector = False
    if package == 'timm':
        import timm

        model = timm.create_model(name, pretrained=False)
    else:
        import torchvision

        is_detector = name in torchvision.models.list_models(module=torchvision.models.detection)
        kwargs = dict(weights_backbone=None) if is_detector else {}
        if name in ('googlenet', 'inception_v3'):
            kwargs = dict(init_weights=False)  # minutes of scipy otherwise
        model = torchvision.models.get_model(name, weights=None, **kwargs)
    model.eval()
    error = None
    # Detectors resize what they are given.
    for side in SIDES[-2:-1] if is_detector else SIDES:
        image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        if is_detector:
            inputs = [image[0]]
            # At their own size, 800 pixels, a run takes half a minute.
            model.transform.min_size, model.transform.max_size = (side,), side
        else:
            inputs = image

        def forward(model: nn.Module, inputs: object = inputs) -> object:
            return model(inputs)

        try:
            with torch.no_grad():
                forward(model)
            return model, forward
        except Exception as found:  # too small, or another size than it was built for
            error = found
    raise ValueError(f'{name} runs on no square image of {SIDES} pixels ({error})')
