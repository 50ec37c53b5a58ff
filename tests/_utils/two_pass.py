# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A model of a few weights, its data and its steps, for tests of the optimizer wrappers."""

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.nn import functional as F

STEPS = 20
needs_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'),
    reason='GradScaler scales on a GPU only before PyTorch 2.3',
)
OPTIMIZERS = {
    'sgd': (torch.optim.SGD, {'lr': 0.05, 'momentum': 0.9, 'weight_decay': 1e-3}),
    'adamw': (torch.optim.AdamW, {'lr': 0.01}),
}


class TinyModel(BaseModel):
    """Convolution, batch norm, dropout, a linear head; doubles its samples' labels in place."""

    def __init__(self, momentum=0.1, dropout=0.0, fail_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 6, 3)
        self.bn = nn.BatchNorm2d(6, momentum=momentum)
        self.fc = nn.Linear(6, 3)
        self.dropout = dropout
        self.fail_at = fail_at
        self.calls = 0
        self.draws = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.calls += 1
        if self.calls == self.fail_at:
            raise FloatingPointError('second pass')
        noise = random.random(), np.random.rand(), float(torch.rand(()))
        self.draws.append(noise)
        x = F.relu(self.bn(self.conv(inputs))).mean((2, 3))
        x = self.fc(F.dropout(x, self.dropout, self.training))
        target = torch.stack([sample['target'] for sample in data_samples])
        for sample in data_samples:
            sample['target'] *= 2
        return {'loss_fit': (x - target).square(), 'acc': x.new_zeros(1)}


def batch(step=0, size=4):
    generator = torch.Generator().manual_seed(100 + step)
    inputs = torch.randn(size, 2, 5, 5, generator=generator)
    # A Sample is opaque to the wrapper, as mmdet's DetDataSample is: no plain dict.
    samples = [Sample(target=torch.randn(3, generator=generator)) for _ in range(size)]
    return {'inputs': inputs, 'data_samples': samples}


class Sample:
    def __init__(self, target):
        self.target = target

    def __getitem__(self, key):
        return getattr(self, key)

    def __setitem__(self, key, value):
        setattr(self, key, value)


def optimizer_of(model, name='sgd'):
    cls, arguments = OPTIMIZERS[name]
    return cls([p for p in model.parameters() if p.requires_grad], **arguments)


def train(model, wrapper, steps=STEPS):
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    return [model.train_step(batch(i), wrapper) for i in range(steps)]


def assert_same(model, reference):
    state, expected = model.state_dict(), reference.state_dict()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


def loss_of(model, data):
    return model.parse_losses(model(**copy.deepcopy(data), mode='loss'))[0]


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
