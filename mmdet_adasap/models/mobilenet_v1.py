# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""MobileNetV1, which neither mmdet nor mmpretrain has.

Exported models carry this file, so it imports nothing of mmdet_adasap.
"""

import warnings
from collections.abc import Sequence

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class MobileNetV1(BaseModule):
    """MobileNet of depthwise separable convolutions, arXiv:1704.04861.

    Args:
        widen_factor (float): Width multiplier: channels of every layer are multiplied by it and
            rounded to a multiple of 8. Defaults to 1.0.
        out_indices (Sequence[int]): Which of the five stages are returned, at strides 2, 4, 8,
            16 and 32. Defaults to ``(4, )``.
        frozen_stages (int): The first convolution and the stages up to this index are not
            trained. Defaults to -1: all are.
        conv_cfg (dict, optional): Config of the convolutions. Defaults to None: Conv2d.
        norm_cfg (dict): Config of the normalisations. Defaults to ``dict(type='BN')``.
        act_cfg (dict): Config of the activations. Defaults to ``dict(type='ReLU')``.
        norm_eval (bool): Whether batch norms keep their statistics in training. Defaults to
            False.
        init_cfg (dict | list[dict], optional): How weights are initialised.

    Raises:
        ValueError: If a stage is named that there is not, or a width is no positive number.
    """

    # Channels, number of blocks, stride of the first block (arXiv:1704.04861, table 1).
    arch_settings = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (4,),
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        act_cfg: dict = dict(type='ReLU'),  # noqa: B006
        norm_eval: bool = False,
        init_cfg: dict | Sequence[dict] | None = (
            dict(type='Kaiming', layer=['Conv2d']),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ),
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if not isinstance(widen_factor, int | float) or not 0 < widen_factor < float('inf'):
            raise ValueError(f'widen_factor={widen_factor!r} must be a number above 0, as 0.5')
        stages = len(self.arch_settings)
        several = isinstance(out_indices, Sequence) and len(out_indices) > 0
        if not several or not set(out_indices) <= set(range(stages)):
            raise ValueError(f'out_indices={out_indices!r} must be among 0 to {stages - 1}')
        if frozen_stages not in range(-1, stages):
            raise ValueError(f'frozen_stages={frozen_stages!r} must be among -1 to {stages - 1}')
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        layer = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        channels = _widen(32, widen_factor)
        self.conv1 = ConvModule(3, channels, 3, stride=2, padding=1, **layer)
        self.layers = []
        for number, (width, blocks, first_stride) in enumerate(self.arch_settings, start=1):
            stage = []
            for stride in (first_stride, *[1] * (blocks - 1)):
                before, channels = channels, _widen(width, widen_factor)
                stage.append(
                    DepthwiseSeparableConvModule(
                        before, channels, 3, stride=stride, padding=1, **layer
                    )
                )
            self.layers.append(f'layer{number}')
            self.add_module(self.layers[-1], nn.Sequential(*stage))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps.

        Args:
            x (Tensor): Images, float of shape ``[N, 3, H, W]``.

        Returns:
            tuple[Tensor, ...]: Maps of the stages in ``out_indices``, ``[N, C, h, w]`` each.
        """
        x = self.conv1(x)
        maps = []
        for index, name in enumerate(self.layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> 'MobileNetV1':
        """Set the mode; frozen stages and, with ``norm_eval``, batch norms stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        """Put frozen stages into eval mode, and stop their training."""
        frozen = [getattr(self, name) for name in self.layers[: self.frozen_stages + 1]]
        for module in [self.conv1, *frozen] if self.frozen_stages >= 0 else []:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False


# In mmengine's registry, which those of mmpretrain and mmdet ask last; mmpretrain has V2 and V3.
# An exported model carries this file, which may then meet itself there.
_known = MODELS.module_dict.get('MobileNetV1')
if _known is None:
    MODELS.register_module(module=MobileNetV1)
elif getattr(_known, 'arch_settings', None) != MobileNetV1.arch_settings:
    warnings.warn(
        f"type='MobileNetV1' is {_known.__module__}.MobileNetV1, which was registered first, and "
        f'not that of mmdet_adasap: configs that want this one say type=MobileNetV1 after '
        f'`from mmdet_adasap.models.mobilenet_v1 import MobileNetV1`',
        stacklevel=2,
    )


def _widen(channels: int, factor: float) -> int:
    """Return the multiple of 8 nearest to a widened number of channels, and not 10 % below.

    The rule of the authors' models for TensorFlow, as mmpretrain's make_divisible.
    """
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
