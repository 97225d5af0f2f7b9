"""cosine_decode as a registered op: schema, choice of backend, fake, autograd."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.cosine_decode.gradients import gradients
from pyseq.ops.cosine_decode.reference import Options, attend

OP = "cosine_decode"
TENSORS = 8  # query, key_cache, value_cache, scale, query_weight, lengths, cos, sin
TRAINABLE = 5  # the first of them

_arguments = (
    "Tensor query, Tensor key_cache, Tensor value_cache, Tensor scale, Tensor? query_weight,"
    " Tensor? lengths, Tensor? cos, Tensor? sin,"
    " str? norm, float eps, int? window, int prefix, float? scale_bound, str backend"
)
_forward_signature = f"({_arguments}) -> Tensor"
# Returns the gradients that `needs` asks for, in the order of the first five tensors.
_backward_signature = f"(Tensor grad, {_arguments}, bool[] needs) -> Tensor[]"


def _forward(*arguments):
    norm, eps, window, prefix, _scale_bound, backend = arguments[TENSORS:]
    backends.choose(OP, backend, {})
    query = arguments[0]
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        out = attend(*arguments[:TENSORS], options=Options(norm, eps, window, prefix))
        return torch.empty_like(query).copy_(out)


def _backward(grad, *arguments):
    norm, eps, window, prefix, _scale_bound, backend, needs = arguments[TENSORS:]
    backends.choose(OP, backend, {})
    options = Options(norm, eps, window, prefix)
    with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
        found = gradients(grad, *arguments[:TENSORS], options=options)
        return [
            torch.empty_like(x).copy_(d)
            for x, d, need in zip(arguments[:TRAINABLE], found, needs, strict=True)
            if need
        ]


def _fake_forward(query, *_arguments):
    return torch.empty_like(query)


def _fake_backward(_grad, *arguments):
    inputs, needs = arguments[:TRAINABLE], arguments[-1]
    return [torch.empty_like(x) for x, need in zip(inputs, needs, strict=True) if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.options = inputs[TENSORS:]


def _differentiate(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:TRAINABLE]
    found = iter(
        torch.ops.pyseq.cosine_decode_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    constants = TENSORS - TRAINABLE + len(ctx.options)
    return (*(next(found) if need else None for need in needs), *[None] * constants)


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
