"""patch_embed as a registered op: schema, choice of backend, gradient."""

from pyseq.ops import backends, registration
from pyseq.ops.patch_embed import reference

OP = "patch_embed"

_inputs = (
    "Tensor samples, Tensor weight, Tensor? bias, Tensor center, Tensor spread,"
    " SymInt stride, bool pad_end, str backend"
)


def _forward(samples, weight, bias, center, spread, stride, pad_end, backend):
    backends.choose(OP, backend, {})
    return reference.embed(samples, weight, bias, center, spread, stride, pad_end)


def _backward(grad, samples, weight, _bias, center, spread, stride, pad_end, backend, needs):
    backends.choose(OP, backend, {})
    return reference.gradients(grad, samples, weight, center, spread, stride, pad_end, needs)


def _fake(samples, weight, _bias, _center, _spread, stride, pad_end, _backend):
    (B, T), (C, P) = samples.shape, weight.shape
    return weight.new_empty(B, reference.count(T, P, stride, pad_end), C)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=3, keep=registration.keep_first(5))
