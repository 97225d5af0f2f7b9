"""adaptive_attention as a registered op: schema, choice of backend, fake, autograd."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.adaptive_attention import reference

OP = "adaptive_attention"
TENSORS = 3  # query, key, value

_inputs = (
    "Tensor query, Tensor key, Tensor value, float scale, float[] coefficients, bool causal,"
    " str backend"
)
_forward_signature = f"({_inputs}) -> Tensor"
# Returns the gradients that `needs` asks for, in the order of query, key and value.
_backward_signature = f"(Tensor grad, {_inputs}, bool[] needs) -> Tensor[]"


def _forward(query, key, value, scale, coefficients, causal, backend):
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        out = reference.attend(query, key, value, scale, coefficients, causal)
    return torch.empty_like(query).copy_(out)  # in the query's memory order


def _backward(grad, query, key, value, scale, coefficients, causal, backend, needs):
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        found = reference.gradients(grad, query, key, value, scale, coefficients, causal)
    inputs = (query, key, value)
    return [
        torch.empty_like(x).copy_(d)
        for x, d, need in zip(inputs, found, needs, strict=True)
        if need
    ]


def _fake_forward(query, *_arguments):
    return torch.empty_like(query)


def _fake_backward(_grad, *arguments):
    inputs, needs = arguments[:TENSORS], arguments[-1]
    return [torch.empty_like(x) for x, need in zip(inputs, needs, strict=True) if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.options = inputs[TENSORS:]


def _differentiate(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:TENSORS]
    found = iter(
        torch.ops.pyseq.adaptive_attention_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    return (*(next(found) if need else None for need in needs), *[None] * len(ctx.options))


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
