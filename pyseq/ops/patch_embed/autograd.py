"""patch_embed as a registered op: schema, choice of backend, fake, autograd."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.patch_embed import reference

OP = "patch_embed"

_options = "Tensor center, Tensor spread, SymInt stride, bool pad_end, str backend"
_forward_signature = f"(Tensor samples, Tensor weight, Tensor? bias, {_options}) -> Tensor"
# Returns the gradients that `needs` asks for, in the order samples, weight, bias.
_backward_signature = (
    f"(Tensor grad, Tensor samples, Tensor weight, {_options}, bool[] needs) -> Tensor[]"
)


def _forward(samples, weight, bias, center, spread, stride, pad_end, backend):
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
        return reference.embed(samples, weight, bias, center, spread, stride, pad_end)


def _backward(grad, samples, weight, center, spread, stride, pad_end, backend, needs):
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
        return reference.gradients(grad, samples, weight, center, spread, stride, pad_end, needs)


def _fake_forward(samples, weight, bias, center, spread, stride, pad_end, backend):
    (B, T), (C, P) = samples.shape, weight.shape
    return weight.new_empty(B, reference.count(T, P, stride, pad_end), C)


def _fake_backward(grad, samples, weight, center, spread, stride, pad_end, backend, needs):
    like = (
        samples.new_empty(samples.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0]),
    )
    return [x for x, need in zip(like, needs, strict=True) if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    samples, weight, _bias, center, spread, *options = inputs
    ctx.save_for_backward(samples, weight, center, spread)
    ctx.options = options


def _differentiate(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:3]
    found = iter(
        torch.ops.pyseq.patch_embed_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    return (*(next(found) if need else None for need in needs), *[None] * 5)


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
