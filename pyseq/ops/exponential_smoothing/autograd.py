"""exponential_smoothing as a registered op: schema, choice of backend, fake, autograd.

The gradient is written out, because autograd is switched off inside an op under many of PyTorch's
modes.
"""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.exponential_smoothing import reference

OP = "exponential_smoothing"

_tensors = "Tensor values, Tensor alpha, Tensor initial"
_forward_signature = f"({_tensors}, str backend) -> Tensor"
# Returns the gradients that `needs` asks for, in the order of the tensors.
_backward_signature = f"(Tensor grad, {_tensors}, str backend, bool[] needs) -> Tensor[]"


def _forward(values, alpha, initial, backend):
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        return torch.empty_like(values).copy_(reference.smooth(values, alpha, initial))


def _backward(grad, values, alpha, initial, backend, needs):
    backends.choose(OP, backend, {})
    inputs = (values, alpha, initial)
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        found = reference.gradients(grad, *inputs)
        return [
            torch.empty_like(x).copy_(gradient)
            for x, gradient, need in zip(inputs, found, needs, strict=True)
            if need
        ]


def _fake_forward(values, _alpha, _initial, _backend):
    return torch.empty_like(values)


def _fake_backward(_grad, values, alpha, initial, _backend, needs):
    inputs = (values, alpha, initial)
    return [torch.empty_like(x) for x, need in zip(inputs, needs, strict=True) if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:3]
    found = iter(
        torch.ops.pyseq.exponential_smoothing_backward(grad, *ctx.saved_tensors, ctx.backend, needs)
    )
    return (*(next(found) if need else None for need in needs), None)


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
