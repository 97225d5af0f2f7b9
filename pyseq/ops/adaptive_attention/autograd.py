"""adaptive_attention as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.ops import backends, registration
from pyseq.ops.adaptive_attention import reference

OP = "adaptive_attention"

_inputs = (
    "Tensor query, Tensor key, Tensor value, float scale, float[] coefficients, bool causal,"
    " str backend"
)


def _forward(query, key, value, scale, coefficients, causal, backend):
    backends.choose(OP, backend, {})
    out = reference.attend(query, key, value, scale, coefficients, causal)
    return torch.empty_like(query).copy_(out)  # in the query's memory order


def _backward(grad, query, key, value, scale, coefficients, causal, backend, _needs):
    backends.choose(OP, backend, {})
    return reference.gradients(grad, query, key, value, scale, coefficients, causal)


def _fake(query, *_arguments):
    return torch.empty_like(query)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=3, keep=registration.keep_first(3))
