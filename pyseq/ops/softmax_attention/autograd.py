"""softmax_attention as a registered op: schema, choice of backend, gradient."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.softmax_attention import native, reference

OP = "softmax_attention"
TENSORS = 5  # query, key, value, lengths, seed
TRAINABLE = 3

_tensors = "Tensor query, Tensor key, Tensor value, Tensor? lengths, Tensor seed"
_options = "float scale, bool causal, float dropout, str backend"
# measures (2, B, H, T), in the accumulation dtype, as `reference.attend_and_measure` tells.
_signature = f"({_tensors}, {_options}) -> (Tensor out, Tensor measures)"
_saved = f"{_tensors}, Tensor out, Tensor measures, {_options}"


def _forward(query, key, value, lengths, seed, scale, causal, dropout, backend):
    arguments = (query, key, value, lengths, seed, scale, causal, dropout)
    if backends.choose(OP, backend, _refusals(query, key, value)) == "native":
        return native.forward(*arguments)
    out, measures = reference.attend_and_measure(*arguments)
    return torch.empty_like(query).copy_(out), measures  # in the query's memory order


def _backward(
    grad, query, key, value, lengths, seed, out, measures, scale, causal, dropout, backend, needs
):
    tensors, options = (query, key, value, lengths, seed), (scale, causal, dropout)
    if backends.choose(OP, backend, _refusals(grad, query, key, value)) == "native":
        return native.backward(grad, *tensors, out, measures, *options, needs)
    return reference.gradients(grad, *tensors, *options)


def _refusals(*tensors: Tensor) -> dict[str, backends.Refusal]:
    return {"native": backends.native_refusal(*tensors)}


def _fake(query, *_arguments):
    measures = query.new_empty((2, *query.shape[:3]), dtype=accumulation_dtype(query))
    return torch.empty_like(query), measures


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS], *output)
    ctx.options = inputs[TENSORS:]
    ctx.mark_non_differentiable(output[1])


registration.define(OP, _signature, _forward, _fake)
registration.define_gradient(OP, _saved, _backward, trainable=TRAINABLE, keep=_keep)
