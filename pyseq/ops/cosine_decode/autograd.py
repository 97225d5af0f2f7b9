"""cosine_decode as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.ops import backends, registration
from pyseq.ops.cosine_decode.gradients import gradients
from pyseq.ops.cosine_decode.reference import Inputs, Options, attend

OP = "cosine_decode"
TENSORS = 8  # query, key_cache, value_cache, scale, query_weight, lengths, cos, sin
TRAINABLE = 5  # the first of them

_inputs = (
    "Tensor query, Tensor key_cache, Tensor value_cache, Tensor scale, Tensor? query_weight,"
    " Tensor? lengths, Tensor? cos, Tensor? sin,"
    " str? norm, float eps, int? window, int prefix, float? scale_bound, str backend"
)


def _forward(*arguments):
    norm, eps, window, prefix, _scale_bound, backend = arguments[TENSORS:]
    backends.choose(OP, backend, {})
    out = attend(Inputs(*arguments[:TENSORS]), Options(norm, eps, window, prefix))
    return torch.empty_like(arguments[0]).copy_(out)


def _backward(grad, *arguments):
    norm, eps, window, prefix, _scale_bound, backend, _needs = arguments[TENSORS:]
    backends.choose(OP, backend, {})
    return gradients(grad, Inputs(*arguments[:TENSORS]), Options(norm, eps, window, prefix))


def _fake(query, *_arguments):
    return torch.empty_like(query)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(
    OP, _inputs, _backward, trainable=TRAINABLE, keep=registration.keep_first(TENSORS)
)
