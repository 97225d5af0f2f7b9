"""adaptive_attention as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.kernels.adaptive_attention import limits
from pyseq.ops import backends, registration
from pyseq.ops.adaptive_attention import native, reference
from pyseq.ops.precision import accumulation_dtype

OP = "adaptive_attention"
TENSORS = 3  # query, key, value

_tensors = "Tensor query, Tensor key, Tensor value"
_options = "float scale, float[] coefficients, bool causal, str backend"
# What a fused backward restores the attention weights from: measures (4, B, H, T), in the
# accumulation dtype, as `reference.attend_and_measure` tells.
_signature = f"({_tensors}, {_options}) -> (Tensor out, Tensor measures)"
_saved = f"{_tensors}, Tensor measures, {_options}"


def _forward(query, key, value, scale, coefficients, causal, backend):
    options = (scale, coefficients, causal)
    chosen = backends.choose(OP, backend, _refusals(query, key, value))
    if chosen == "native":
        return native.forward(query, key, value, *options)
    if chosen == "triton":
        from pyseq.kernels.adaptive_attention.forward import adaptive_attention_forward

        return adaptive_attention_forward(query, key, value, *options)
    out, measures = reference.attend_and_measure(query, key, value, *options)
    return torch.empty_like(query).copy_(out), measures  # in the query's memory order


def _backward(grad, query, key, value, measures, scale, coefficients, causal, backend, needs):
    options = (scale, coefficients, causal)
    chosen = backends.choose(OP, backend, _refusals(query, key, value))
    if chosen == "native":
        return native.backward(grad, query, key, value, measures, *options, needs)
    if chosen == "triton":
        from pyseq.kernels.adaptive_attention.backward import adaptive_attention_backward

        return adaptive_attention_backward(grad, query, key, value, measures, *options, needs)
    return reference.gradients(grad, query, key, value, *options)


def _refusals(query: torch.Tensor, *others: torch.Tensor) -> dict[str, backends.Refusal]:
    return {
        "triton": backends.triton_refusal(query, lambda: limits.refuse(query, *others)),
        "native": backends.native_refusal(query, *others),
    }


def _fake(query, *_arguments):
    measures = query.new_empty((4, *query.shape[:3]), dtype=accumulation_dtype(query))
    return torch.empty_like(query), measures


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS], output[1])
    ctx.options = inputs[TENSORS:]
    ctx.mark_non_differentiable(output[1])


registration.define(OP, _signature, _forward, _fake)
registration.define_gradient(OP, _saved, _backward, trainable=TENSORS, keep=_keep)
