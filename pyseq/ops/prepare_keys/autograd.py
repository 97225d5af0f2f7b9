"""prepare_keys as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.ops import backends, registration
from pyseq.ops.prepare_keys import reference

OP = "prepare_keys"

_inputs = (
    "Tensor key, Tensor? key_weight, Tensor? cos, Tensor? sin,"
    " str? norm, float eps, SymInt position, str backend"
)


def _forward(key, *arguments):
    *rest, backend = arguments
    backends.choose(OP, backend, {})
    return torch.empty_like(key).copy_(reference.prepare(key, *rest))


def _backward(grad, key, *arguments):
    *rest, backend, _needs = arguments
    backends.choose(OP, backend, {})
    return reference.gradients(grad, key, *rest)


def _fake(key, *_arguments):
    return torch.empty_like(key)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=2, keep=registration.keep_first(4))
