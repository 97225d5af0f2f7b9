"""scale_cross_entropy as a registered op: schema, choice of backend, fake, autograd."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.attention import accumulation_dtype
from pyseq.ops.scale_cross_entropy import parts

OP = "scale_cross_entropy"
TENSORS = 4  # hidden (N, C), weight (V, C), bias (V,), targets (N,) int64
TRAINABLE = 3  # the first of them

_tensors = "Tensor hidden, Tensor weight, Tensor? bias, Tensor targets"
_options = "int[] scales, int? ignore_index, str backend"
# Returns the losses of every row at every scale, (n_scales, N), so that the loss and the losses per
# scale both have gradients, and one backward serves every reduction.
_forward_signature = f"({_tensors}, {_options}) -> Tensor"
# Returns the gradients that `needs` asks for, in the order of the first three tensors.
_backward_signature = f"(Tensor grad, {_tensors}, {_options}, bool[] needs) -> Tensor[]"


def _forward(hidden, weight, bias, targets, scales, ignore_index, backend):
    backends.choose(OP, backend, {})
    return parts.forward(hidden, weight, bias, targets, scales=scales, ignore_index=ignore_index)


def _backward(grad, hidden, weight, bias, targets, scales, ignore_index, backend, needs):
    backends.choose(OP, backend, {})
    return parts.backward(
        grad, hidden, weight, bias, targets, scales=scales, ignore_index=ignore_index, needs=needs
    )


def _fake_forward(hidden, _weight, _bias, _targets, scales, *_options):
    return hidden.new_empty((len(scales), hidden.shape[0]), dtype=accumulation_dtype(hidden))


def _fake_backward(_grad, *arguments):
    inputs, needs = arguments[:TRAINABLE], arguments[-1]
    return [torch.empty_like(x) for x, need in zip(inputs, needs, strict=True) if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.options = inputs[TENSORS:]


def _differentiate(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:TRAINABLE]
    found = iter(
        torch.ops.pyseq.scale_cross_entropy_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    constants = TENSORS - TRAINABLE + len(ctx.options)
    return (*(next(found) if need else None for need in needs), *[None] * constants)


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
