"""No tensor is left on another device: every model on a fake GPU.

Fake tensors have a shape, a dtype and a device, and no numbers; an operation over two devices fails as it
would on a GPU. So a machine without one finds a tensor that was made without a device.
"""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from fsgen.attention import AttentionPixelCNN
from fsgen.conditional import ConditionalPixelCNN, Summary
from fsgen.experiments import MODELS
from fsgen.multiscale import MultiscalePixelCNN, shrink
from fsgen.sampling import SAMPLERS, CachedSampler


def move(model, device):
    "What `model.to(device)` can't do to fake tensors: parameters and buffers move, and nothing else does."
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(weight, device=device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)
    return model


@pytest.fixture
def on_fake_gpu(monkeypatch):
    "Call with a class: its model, two targets and two support sets on a GPU that isn't there."

    def zeros(outputs, inputs, *_, **__):  # a backward pass would ask a real GPU
        return tuple(torch.zeros_like(x) for x in inputs)

    def make(cls, shape=(3, 8, 9), levels=16):
        model = cls(shape, levels, cls.config_class(layers=4, planes=8, skip=12))
        images, support = torch.zeros(2, *shape), torch.zeros(2, 3, *shape)
        return move(model, "cuda"), *(x.to("cuda", torch.uint8) for x in (images, support))

    monkeypatch.setattr(torch.autograd, "grad", zeros)
    with FakeTensorMode():
        yield make


def devices(tensors):
    return {tensor.device.type for tensor in tensors}


@pytest.mark.parametrize("cls", MODELS.values())
def test_forward(on_fake_gpu, cls):
    model, images, support = on_fake_gpu(cls)
    context = model.context(support)
    logits = model.logits(images, context)
    assert logits.shape == (2, 16, 3, 8, 9)
    assert devices([*context, logits, model.nll(images, support)]) == {"cuda"}


@pytest.mark.parametrize("cls", SAMPLERS)
def test_row_of_the_cached_sampler(on_fake_gpu, cls):
    model, images, support = on_fake_gpu(cls)
    with torch.no_grad():
        sampler = CachedSampler(model, support, samples=1)
        sampler.start_row(0, torch.rand(images.shape, device="cuda"), images, images > 0)
        sampler.draw_row()
    assert devices([sampler.levels]) == {"cuda"}


class ScalesOfAttention(MultiscalePixelCNN):
    config_class = AttentionPixelCNN.config_class

    def __init__(self, shape, levels, config, parallel=False):
        super().__init__(shape, levels, config, AttentionPixelCNN, parallel=parallel)


class ParallelScales(ScalesOfAttention):
    def __init__(self, shape, levels, config):
        super().__init__(shape, levels, config, parallel=True)


def test_parallel_scales(on_fake_gpu):
    model, images, support = on_fake_gpu(ParallelScales)
    assert devices([model.nll(images, support)]) == {"cuda"}


def test_scales(on_fake_gpu):
    model, images, support = on_fake_gpu(ScalesOfAttention)
    assert devices([model.nll(images, support)]) == {"cuda"}
    with torch.no_grad():
        sampler = CachedSampler(model.models[-1], support, 1, shrink(images))
        sampler.start_row(0, torch.rand(images.shape, device="cuda"), images, images > 0)
        sampler.draw_row()
    assert devices([sampler.levels]) == {"cuda"}


@pytest.mark.parametrize("cls", [cls for cls in SAMPLERS if issubclass(cls, AttentionPixelCNN)])
def test_attention_map(on_fake_gpu, cls):
    model, images, support = on_fake_gpu(cls)
    maps = model.attention_map(images, model.context(support))
    assert maps.shape[:4] == (2, 8, 9, 3) and devices([maps]) == {"cuda"}


class Forgetful(ConditionalPixelCNN):
    "Makes a tensor without saying where."

    def encode(self, support):
        summary = super().encode(support).summary
        return Summary(summary + torch.ones(summary.shape))


def test_a_tensor_left_behind_is_found(on_fake_gpu):
    model, _, support = on_fake_gpu(Forgetful)
    with pytest.raises(RuntimeError, match="device"):
        model.context(support)
