"""prepare_keys as a registered op: schema, choice of backend, fake, autograd."""

import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.prepare_keys import reference

OP = "prepare_keys"

_arguments = (
    "Tensor key, Tensor? key_weight, Tensor? cos, Tensor? sin,"
    " str? norm, float eps, SymInt position, str backend"
)
_forward_signature = f"({_arguments}) -> Tensor"
# Returns the gradients that `needs` asks for, of key and key_weight.
_backward_signature = f"(Tensor grad, {_arguments}, bool[] needs) -> Tensor[]"


def _forward(key, *arguments):
    *rest, backend = arguments
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(key.device.type, enabled=False):
        return torch.empty_like(key).copy_(reference.prepare(key, *rest))


def _backward(grad, key, key_weight, *arguments):
    *rest, backend, needs = arguments
    backends.choose(OP, backend, {})
    with torch.no_grad(), torch.autocast(key.device.type, enabled=False):
        found = reference.gradients(grad, key, key_weight, *rest)
        return [
            torch.empty_like(x).copy_(d)
            for x, d, need in zip((key, key_weight), found, needs, strict=True)
            if need
        ]


def _fake_forward(key, *_arguments):
    return torch.empty_like(key)


def _fake_backward(_grad, key, key_weight, *arguments):
    pairs = zip((key, key_weight), arguments[-1], strict=True)
    return [torch.empty_like(x) for x, need in pairs if need]


def _keep_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _differentiate(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:2]
    found = iter(
        torch.ops.pyseq.prepare_keys_backward(grad, *ctx.saved_tensors, *ctx.options, needs)
    )
    return (*(next(found) if need else None for need in needs), *[None] * 6)


registration.define(OP, _forward_signature, _forward, _fake_forward)
registration.define(f"{OP}_backward", _backward_signature, _backward, _fake_backward)
registration.differentiate(OP, _keep_for_backward, _differentiate)
