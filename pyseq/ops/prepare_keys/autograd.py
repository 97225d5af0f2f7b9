"""prepare_keys as a registered op: schema, choice of backend, gradient."""

import torch

from pyseq.kernels.prepare_keys import limits
from pyseq.ops import backends, registration
from pyseq.ops.prepare_keys import native, reference

OP = "prepare_keys"

_inputs = (
    "Tensor key, Tensor? key_weight, Tensor? cos, Tensor? sin,"
    " str? norm, float eps, SymInt position, str backend"
)


def _forward(key, *arguments):
    *rest, backend = arguments
    chosen = backends.choose(OP, backend, _refusals(key))
    if chosen == "native":
        return native.prepare(key, *rest)
    if chosen == "triton":
        from pyseq.kernels.prepare_keys.forward import prepare_keys_forward

        return prepare_keys_forward(key, *rest)
    return torch.empty_like(key).copy_(reference.prepare(key, *rest))


def _backward(grad, key, *arguments):
    *rest, backend, needs = arguments
    chosen = backends.choose(OP, backend, _refusals(key))
    if chosen == "native":
        return native.gradients(grad, key, *(*rest, needs))
    if chosen == "triton":
        from pyseq.kernels.prepare_keys.backward import prepare_keys_backward

        return prepare_keys_backward(grad, key, *(*rest, needs))
    return reference.gradients(grad, key, *rest)


def _refusals(key: torch.Tensor) -> dict[str, backends.Refusal]:
    return {
        "triton": backends.triton_refusal(key, lambda: limits.refuse(key)),
        "native": backends.native_refusal(key),
    }


def _fake(key, *_arguments):
    return torch.empty_like(key)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=2, keep=registration.keep_first(4))
