"""scale_cross_entropy as a registered op: schema, choice of backend, gradient."""

from pyseq.ops import backends, registration
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.scale_cross_entropy import parts

OP = "scale_cross_entropy"

_inputs = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor targets,"
    " int[] scales, int? ignore_index, str backend"
)


def _forward(hidden, weight, bias, targets, scales, ignore_index, backend):
    backends.choose(OP, backend, {})
    return parts.forward(hidden, weight, bias, targets, scales=scales, ignore_index=ignore_index)


def _backward(grad, hidden, weight, bias, targets, scales, ignore_index, backend, needs):
    backends.choose(OP, backend, {})
    return parts.backward(
        grad, hidden, weight, bias, targets, scales=scales, ignore_index=ignore_index, needs=needs
    )


def _fake(hidden, _weight, _bias, _targets, scales, *_options):
    return hidden.new_empty((len(scales), hidden.shape[0]), dtype=accumulation_dtype(hidden))


# The losses are not reduced, (n_scales, N), so that one backward serves every reduction. A fused
# one needs no more than the inputs: a row's log-sum-exp is its loss at a scale plus that of the
# few logits of the target's bin.
registration.define(OP, f"({_inputs}) -> Tensor", _forward, _fake)
registration.define_gradient(OP, _inputs, _backward, trainable=3, keep=registration.keep_first(4))
