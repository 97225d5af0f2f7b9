"""hard_attention as a registered op: schema, choice of backend, gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.kernels.hard_attention import limits
from pyseq.ops import backends, registration
from pyseq.ops.hard_attention import native, reference

OP = "hard_attention"

_options = "float scale, bool causal, str backend"
# index (B, H, T) is int64, -1 where no key was chosen.
_signature = f"(Tensor query, Tensor key, Tensor value, {_options}) -> (Tensor out, Tensor index)"
# Where neither query nor key needs a gradient, neither has to be there.
_saved = f"Tensor? query, Tensor? key, Tensor value, Tensor index, {_options}"


def _forward(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, backend: str):
    chosen = backends.choose(OP, backend, _refusals(query, key, value))
    if chosen == "native":
        return native.forward(query, key, value, causal)
    if chosen == "triton":
        from pyseq.kernels.hard_attention.forward import hard_attention_forward

        return hard_attention_forward(query, key, value, causal)
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
    chosen = backends.choose(OP, backend, _refusals(grad, value))
    if chosen == "native":
        return native.backward(grad, query, key, value, index, scale, causal, needs)
    if chosen == "triton":
        return _triton_backward(grad, query, key, value, index, scale, causal, needs)
    found: list[Tensor | None] = [None] * 3
    if query is not None and key is not None:
        found[:2] = reference.backward_of_choice(grad, query, key, value, scale, causal)
    if needs[2]:
        found[2] = reference.backward_of_copy(grad, index, value)
    return found


def _triton_backward(grad, query, key, value, index, scale, causal, needs):
    from pyseq.kernels.hard_attention import backward

    found: list[Tensor | None] = [None] * 3
    if query is not None and key is not None:
        found[:2] = backward.hard_attention_backward_of_choice(
            grad, query, key, value, scale, causal, *needs[:2]
        )
    if needs[2]:
        found[2] = backward.hard_attention_backward_of_copy(grad, index, value)
    return found


def _refusals(query: Tensor, *others: Tensor) -> dict[str, backends.Refusal]:
    return {
        "triton": backends.triton_refusal(query, lambda: limits.refuse(query, *others)),
        "native": backends.native_refusal(query, *others),
    }


def _fake(query, _key, _value, _scale, _causal, _backend):
    return torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.int64)


def _keep(ctx, inputs, output) -> None:
    query, key, value, *ctx.options = inputs
    if not any(ctx.needs_input_grad[:2]):
        query = key = None  # the copy's gradient needs only the index
    ctx.save_for_backward(query, key, value, output[1])
    ctx.mark_non_differentiable(output[1])


registration.define(OP, _signature, _forward, _fake)
registration.define_gradient(OP, _saved, _backward, trainable=3, keep=_keep)
