"""patch_embed as a registered op: schema, choice of backend, gradient."""

from torch import Tensor

from pyseq.kernels.patch_embed import limits
from pyseq.ops import backends, registration
from pyseq.ops.patch_embed import native, reference

OP = "patch_embed"

_inputs = (
    "Tensor samples, Tensor weight, Tensor? bias, Tensor center, Tensor spread,"
    " SymInt stride, bool pad_end, str backend"
)


def _forward(samples, weight, bias, center, spread, stride, pad_end, backend):
    N = reference.count(samples.shape[1], weight.shape[1], stride, pad_end)
    chosen = backends.choose(OP, backend, _refusals(samples, weight))
    if chosen == "native":
        return native.forward(samples, weight, bias, center, spread, N, stride)
    if chosen == "triton":
        from pyseq.kernels.patch_embed.forward import patch_embed_forward

        return patch_embed_forward(samples, weight, bias, center, spread, N, stride, pad_end)
    return reference.embed(samples, weight, bias, center, spread, stride, pad_end)


def _backward(grad, samples, weight, _bias, center, spread, stride, pad_end, backend, needs):
    chosen = backends.choose(OP, backend, _refusals(samples, weight))
    if chosen == "native":
        return native.backward(grad, samples, weight, center, spread, stride, needs)
    arguments = (grad, samples, weight, center, spread, stride, pad_end, needs)
    if chosen == "triton":
        from pyseq.kernels.patch_embed.backward import patch_embed_backward

        return patch_embed_backward(*arguments)
    return reference.gradients(*arguments)


def _refusals(samples: Tensor, weight: Tensor) -> dict[str, backends.Refusal]:
    return {
        "triton": backends.triton_refusal(weight, lambda: limits.refuse(samples)),
        "native": backends.native_refusal(samples, weight),
    }


def _fake(samples, weight, _bias, _center, _spread, stride, pad_end, _backend):
    (B, T), (C, P) = samples.shape, weight.shape
    return weight.new_empty(B, reference.count(T, P, stride, pad_end), C)


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=3, keep=registration.keep_first(5))
