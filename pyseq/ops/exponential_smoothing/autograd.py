"""exponential_smoothing as a registered op: schema, choice of backend, gradient."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.exponential_smoothing import native, reference

OP = "exponential_smoothing"

_inputs = "Tensor values, Tensor alpha, Tensor initial, str backend"


def _forward(values, alpha, initial, backend):
    chosen = backends.choose(OP, backend, _refusals(values))
    if chosen == "native":
        return native.forward(values, alpha, initial)
    if chosen == "triton":
        from pyseq.kernels.exponential_smoothing.forward import exponential_smoothing_forward

        return exponential_smoothing_forward(values, alpha, initial)
    return torch.empty_like(values).copy_(reference.smooth(values, alpha, initial))


def _backward(grad, values, alpha, initial, backend, needs):
    chosen = backends.choose(OP, backend, _refusals(values))
    if chosen == "native":
        return native.backward(grad, values, alpha, initial, needs)
    if chosen == "triton":
        from pyseq.kernels.exponential_smoothing.backward import exponential_smoothing_backward

        return exponential_smoothing_backward(grad, values, alpha, initial, needs)
    return reference.gradients(grad, values, alpha, initial)


def _refusals(values: Tensor) -> dict[str, backends.Refusal]:
    return {
        "triton": backends.triton_refusal(values),
        "native": backends.native_refusal(values),
    }


def _fake(values, _alpha, _initial, _backend):
    return torch.empty_like(values)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=3, keep=registration.keep_first(3))
