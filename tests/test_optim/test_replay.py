# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import random

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_adasap.optim.replay import BufferSnapshot, CapturedForward, RandomState


def draw():
    return random.random(), np.random.rand(), float(torch.rand(()))


class TestRandomState:
    def test_restore(self):
        state = RandomState.capture(torch.device('cpu'))
        first, second = draw(), draw()
        state.restore()
        assert (draw(), draw()) == (first, second)
        assert first != second


class Statistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(2))
        self.register_buffer('count', torch.tensor(0))
        self.register_buffer('scale', torch.ones(1), persistent=False)
        self.register_buffer('empty', None)

    def forward(self, x):
        self.mean += x.mean()
        self.count += 1
        self.scale = self.scale * 2  # a new tensor each time
        return x


class TestBufferSnapshot:
    def test_restore(self):
        model = nn.Sequential(Statistics(), Statistics())
        model(torch.ones(3))
        mean, scale = model[0].mean, model[0].scale
        snapshot = BufferSnapshot(model)
        model(torch.ones(3))
        snapshot.restore()
        for module in model:
            assert module.mean.tolist() == [1, 1]
            assert int(module.count) == 1
            assert float(module.scale) == 2
        assert model[0].mean is mean
        assert model[0].scale is scale

    def test_no_buffers(self):
        BufferSnapshot(nn.Linear(2, 2)).restore()


class Sample:
    def __init__(self, boxes):
        self.boxes = boxes


class Head(nn.Module):
    """Changes its samples, as detection heads do, and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, inputs, samples, scale=1):
        self.seen.append((inputs, float(samples[0].boxes[0]), draw()))
        samples[0].boxes *= 2
        samples.pop()
        return self.weight * scale


class TestCapturedForward:
    def test_same_inputs_and_random_numbers(self):
        model = Head()
        forward = CapturedForward(model)
        inputs = torch.ones(2)
        first = model(inputs, [Sample(torch.ones(4)), Sample(torch.ones(4))], scale=3)
        forward.stop()
        draw()
        assert torch.equal(forward.run_again(), first)
        assert model.seen[0] == model.seen[1]
        assert model.seen[1][0] is inputs  # images are shared, not copied

    def test_called_twice(self):
        model = Head()
        forward = CapturedForward(model)
        model(torch.ones(2), [Sample(torch.ones(4))])
        with pytest.raises(RuntimeError, match='Head is called more than once'):
            model(torch.ones(2), [Sample(torch.ones(4))])
        forward.stop()
        model(torch.ones(2), [Sample(torch.ones(4))])

    def test_input_changed_in_place(self):
        class InPlace(nn.Module):
            def forward(self, data):
                return data['images'][0].mul_(2)

        model = InPlace()
        forward = CapturedForward(model)
        model({'images': [torch.ones(2)]})
        forward.stop()
        with pytest.raises(RuntimeError, match='InPlace changes an input tensor in place'):
            forward.run_again()
