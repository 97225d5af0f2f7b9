"""exponential_smoothing as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.ops import backends, registration
from pyseq.ops.exponential_smoothing import reference

OP = "exponential_smoothing"

_inputs = "Tensor values, Tensor alpha, Tensor initial, str backend"


def _forward(values, alpha, initial, backend):
    backends.choose(OP, backend, {})
    return torch.empty_like(values).copy_(reference.smooth(values, alpha, initial))


def _backward(grad, values, alpha, initial, backend, _needs):
    backends.choose(OP, backend, {})
    return reference.gradients(grad, values, alpha, initial)


def _fake(values, _alpha, _initial, _backend):
    return torch.empty_like(values)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=3, keep=registration.keep_first(3))
