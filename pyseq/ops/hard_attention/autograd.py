"""hard_attention as a registered op: schema, choice of backend, fake, autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.hard_attention import reference

OP = "hard_attention"

# index (B, H, T) is int64, -1 where no key was chosen.
_forward_signature = (
    "(Tensor query, Tensor key, Tensor value, float scale, bool causal, str backend)"
    " -> (Tensor out, Tensor index)"
)
# Returns the gradients that `needs` asks for, in the order query, key, value. Where neither query
# nor key needs one, neither has to be there.
_backward_signature = (
    "(Tensor grad, Tensor? query, Tensor? key, Tensor value, Tensor index, float scale,"
    " bool causal, str backend, bool[] needs) -> Tensor[]"
)


def _forward(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, backend: str):
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        index = reference.choose(query, key, causal)
        out = torch.empty_like(query).copy_(reference.copy_rows(value, index, causal))
    return out, index


def _backward(
    grad: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    index: Tensor,
    scale: float,
    causal: bool,
    backend: str,
    needs: Sequence[bool],
):
    backends.choose(OP, backend, {})
    found = []
    with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
        if query is not None and key is not None:
            d_query, d_key = reference.backward_of_choice(grad, query, key, value, scale, causal)
            found += [(query, d_query)] if needs[0] else []
            found += [(key, d_key)] if needs[1] else []
        if needs[2]:
            found += [(value, reference.backward_of_copy(grad, index, value))]
        return [torch.empty_like(x).copy_(gradient) for x, gradient in found]


def _fake_forward(query, _key, _value, _scale, _causal, _backend):
    return torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.int64)


def _fake_backward(_grad, query, key, value, _index, _scale, _causal, _backend, needs):
    inputs = zip((query, key, value), needs, strict=True)
    return [torch.empty_like(x) for x, need in inputs if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    query, key, value, *ctx.options = inputs
    if not any(ctx.needs_input_grad[:2]):
        query = key = None  # the copy's gradient needs only the index
    ctx.save_for_backward(query, key, value, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad: Tensor, _grad_index: None):
    needs = ctx.needs_input_grad[:3]
    found = iter(
        torch.ops.pyseq.hard_attention_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    return (*(next(found) if need else None for need in needs), *[None] * len(ctx.options))


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
