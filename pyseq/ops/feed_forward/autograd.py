"""feed_forward as a registered op: schema, choice of backend, gradient."""

from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.feed_forward import native, reference

OP = "feed_forward"
TENSORS = 6  # x, weight_in, bias_in, weight_out, bias_out, seed
TRAINABLE = 5

_inputs = (
    "Tensor x, Tensor weight_in, Tensor bias_in, Tensor weight_out, Tensor bias_out, Tensor seed,"
    " str activation, float dropout, str backend"
)


def _forward(x, weight_in, bias_in, weight_out, bias_out, seed, activation, dropout, backend):
    arguments = (x, weight_in, bias_in, weight_out, bias_out, seed, activation, dropout)
    chosen = backends.choose(OP, backend, _refusals(x))
    if chosen == "native" and not native.is_empty(x, weight_out):
        return native.forward(*arguments)
    return reference.transform(*arguments).to(x.dtype)


def _backward(
    grad, x, weight_in, bias_in, weight_out, bias_out, seed, activation, dropout, backend, needs
):
    chosen = backends.choose(OP, backend, _refusals(grad, x))
    if chosen == "native" and not native.is_empty(x, weight_out):
        weights = (weight_in, bias_in, weight_out, bias_out)
        return native.backward(grad, x, *weights, seed, activation, dropout, needs)
    return reference.gradients(grad, x, weight_in, bias_in, weight_out, seed, activation, dropout)


def _refusals(*tensors: Tensor) -> dict[str, backends.Refusal]:
    return {"native": backends.native_refusal(*tensors)}


def _fake(x, _weight_in, _bias_in, weight_out, *_arguments):
    return x.new_empty((*x.shape[:2], weight_out.shape[1]))


registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(
    OP, _inputs, _backward, trainable=TRAINABLE, keep=registration.keep_first(TENSORS)
)
