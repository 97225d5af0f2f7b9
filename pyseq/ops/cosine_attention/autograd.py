"""cosine_attention as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.kernels.cosine_attention import limits
from pyseq.ops import backends, registration
from pyseq.ops.cosine_attention import native, parts
from pyseq.ops.cosine_attention.reference import Inputs, Options
from pyseq.ops.precision import accumulation_dtype

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
_signature = f"({_tensors}, {_options}) -> (Tensor out, Tensor lse)"
_saved = f"{_tensors}, Tensor out, Tensor lse, {_options}"


def _forward(*arguments):
    inputs = Inputs(*arguments[:TENSORS])
    norm, eps, causal, window, prefix, scale_bound, backend = arguments[TENSORS:]
    options = Options(norm, eps, causal, window, prefix)
    bound = limits.logit_bound(scale_bound, norm, inputs.query.shape[3])
    chosen = backends.choose(OP, backend, _refusals(inputs))
    if chosen == "native":
        return native.forward(inputs, options, bound)
    if chosen == "triton":
        from pyseq.kernels.cosine_attention.forward import cosine_attention_forward

        return cosine_attention_forward(*inputs, None, norm, eps, causal, window, prefix, bound)
    return parts.forward(inputs, options)


def _backward(grad, *arguments):
    inputs, (out, lse, *rest) = Inputs(*arguments[:TENSORS]), arguments[TENSORS:]
    norm, eps, causal, window, prefix, _scale_bound, backend, needs = rest
    options = Options(norm, eps, causal, window, prefix)
    chosen = backends.choose(OP, backend, _refusals(inputs))
    if chosen == "native":
        return native.backward(grad, inputs, out, lse, options, needs)
    if chosen == "triton":
        from pyseq.kernels.cosine_attention.backward import cosine_attention_backward

        mask = (causal, window, prefix)
        return cosine_attention_backward(
            grad, *inputs, None, out, lse, norm, eps, *mask, False, needs
        )
    return parts.backward(grad, inputs, options, needs)


def _refusals(inputs: Inputs) -> dict[str, backends.Refusal]:
    heads = inputs[:3]  # query, key, value
    return {
        "triton": backends.triton_refusal(inputs.query, lambda: limits.refuse(*heads)),
        "native": backends.native_refusal(*heads),
    }


def _fake(query, *_arguments):
    lse = query.new_empty(query.shape[:3], dtype=accumulation_dtype(query))
    return torch.empty_like(query), lse


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TENSORS], *output)
    ctx.options = inputs[TENSORS:]
    ctx.mark_non_differentiable(output[1])


registration.define(OP, _signature, _forward, _fake)
registration.define_gradient(OP, _saved, _backward, trainable=TRAINABLE, keep=_keep)
