"""cosine_attention as a registered op: schema, choice of backend, fake, autograd."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.attention import accumulation_dtype
from pyseq.ops.cosine_attention import parts
from pyseq.ops.cosine_attention.reference import Options

OP = "cosine_attention"
TENSORS = 8  # query, key, value, scale, query_weight, key_weight, cos, sin
TRAINABLE = 6  # the first of them; a rotation's tables are constants

_tensors = (
    "Tensor query, Tensor key, Tensor value, Tensor scale, Tensor? query_weight,"
    " Tensor? key_weight, Tensor? cos, Tensor? sin"
)
_options = (
    "str? norm, float eps, bool causal, int? window, int prefix, float? scale_bound, str backend"
)
# lse (B, H, T) is the natural log-sum-exp of the logits, in the accumulation dtype and -inf where a
# query sees no key: a fused backward restores the attention weights from it.
_forward_signature = f"({_tensors}, {_options}) -> (Tensor out, Tensor lse)"
# Returns the gradients that `needs` asks for, in the order of the first six tensors.
_backward_signature = (
    f"(Tensor grad, {_tensors}, Tensor out, Tensor lse, {_options}, bool[] needs) -> Tensor[]"
)


def _forward(*arguments):
    norm, eps, causal, window, prefix, _scale_bound, backend = arguments[TENSORS:]
    backends.choose(OP, backend, {})
    return parts.forward(*arguments[:TENSORS], options=Options(norm, eps, causal, window, prefix))


def _backward(grad, *arguments):
    tensors, (_out, _lse, *rest) = arguments[:TENSORS], arguments[TENSORS:]
    norm, eps, causal, window, prefix, _scale_bound, backend, needs = rest
    backends.choose(OP, backend, {})
    return parts.backward(
        grad, *tensors, options=Options(norm, eps, causal, window, prefix), needs=needs
    )


def _fake_forward(query, *_arguments):
    lse = query.new_empty(query.shape[:3], dtype=accumulation_dtype(query))
    return torch.empty_like(query), lse


def _fake_backward(_grad, *arguments):
    inputs, needs = arguments[:TRAINABLE], arguments[-1]
    return [torch.empty_like(x) for x, need in zip(inputs, needs, strict=True) if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS], *output)
    ctx.options = inputs[TENSORS:]
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad: Tensor, _grad_lse: Tensor | None):
    needs = ctx.needs_input_grad[:TRAINABLE]
    found = iter(
        torch.ops.pyseq.cosine_attention_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    constants = TENSORS - TRAINABLE + len(ctx.options)
    return (*(next(found) if need else None for need in needs), *[None] * constants)


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
