"""cosine_decode as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.kernels.cosine_attention.limits import logit_bound
from pyseq.kernels.cosine_decode import limits
from pyseq.ops import backends, registration
from pyseq.ops.cosine_decode import native
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
    inputs = Inputs(*arguments[:TENSORS])
    norm, eps, window, prefix, scale_bound, backend = arguments[TENSORS:]
    options = Options(norm, eps, window, prefix)
    chosen = backends.choose(OP, backend, _refusals(inputs))
    if chosen == "native":
        return native.forward(inputs, options, scale_bound)
    if chosen == "triton":
        return _forward_triton(inputs, options, scale_bound)[0]
    return torch.empty_like(inputs.query).copy_(attend(inputs, options))


def _backward(grad, *arguments):
    inputs = Inputs(*arguments[:TENSORS])
    norm, eps, window, prefix, scale_bound, backend, needs = arguments[TENSORS:]
    options = Options(norm, eps, window, prefix)
    if backends.choose(OP, backend, _refusals(inputs)) == "triton":
        return _backward_triton(grad, inputs, options, scale_bound, needs)
    return gradients(grad, inputs, options)


def _forward_triton(
    inputs: Inputs,
    options: Options,
    scale_bound: float | None,
    dtype: torch.dtype | None = None,
):
    from pyseq.kernels.cosine_decode.forward import cosine_decode_forward

    bound = logit_bound(scale_bound, options.norm, inputs.query.shape[3])
    return cosine_decode_forward(
        *inputs, options.norm, options.eps, options.window, options.prefix, bound, dtype
    )


def _backward_triton(grad, inputs: Inputs, options: Options, scale_bound: float | None, needs):
    """By cosine_attention's kernels, from an output that is made again: decoding seldom trains."""
    from pyseq.kernels.cosine_attention.backward import cosine_attention_backward

    query, key, value, scale, query_weight, lengths, cos, sin = inputs
    out, lse = _forward_triton(inputs, options, scale_bound, torch.float32)
    norm, eps, window, prefix = options.norm, options.eps, options.window, options.prefix
    d_query, d_key, d_value, d_scale, d_weight, _ = cosine_attention_backward(
        grad, query, key, value, scale, query_weight, None, cos, sin, lengths, out, lse,
        norm, eps, True, window, prefix, True, (*needs, False),
    )  # fmt: skip
    return d_query, d_key, d_value, d_scale, d_weight


def _refusals(inputs: Inputs) -> dict[str, backends.Refusal]:
    heads = inputs[:3]  # query, key_cache, value_cache
    return {
        "triton": backends.triton_refusal(inputs.query, lambda: limits.refuse(*heads)),
        "native": backends.native_refusal(*heads),
    }


def _fake(query, *_arguments):
    return torch.empty_like(query)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(
    OP, _inputs, _backward, trainable=TRAINABLE, keep=registration.keep_first(TENSORS)
)
