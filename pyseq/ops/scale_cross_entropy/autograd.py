"""scale_cross_entropy as a registered op: schema, choice of backend, gradient."""

from pyseq.kernels.scale_cross_entropy import limits
from pyseq.ops import backends, registration
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.scale_cross_entropy import native, parts

OP = "scale_cross_entropy"

_tensors = "Tensor hidden, Tensor weight, Tensor? bias, Tensor targets"
_options = "int[] scales, int? ignore_index, str backend"
# The losses are not reduced, (n_scales, N), so that one backward serves every reduction. The masses
# (2, 1 + n_scales, N) restore a softmax from a logit: the maximum, and the sum of exp(logit -
# maximum), of all symbols and of the target's bin at each scale below V. The reference makes its
# softmax again and leaves them 0, with which no other backward finds a finite gradient.
_signature = f"({_tensors}, {_options}) -> (Tensor losses, Tensor masses)"
_saved = f"{_tensors}, Tensor masses, {_options}"


def _forward(hidden, weight, bias, targets, scales, ignore_index, backend):
    options = {"scales": scales, "ignore_index": ignore_index}
    chosen = backends.choose(OP, backend, _refusals(hidden, weight))
    if chosen == "reference":
        losses = parts.forward(hidden, weight, bias, targets, **options)
        return losses, losses.new_zeros(2, 1 + len(scales), len(hidden))
    if chosen == "native":
        native.check_targets(OP, targets, len(weight), ignore_index)
        kernel = native.forward
    else:
        from pyseq.kernels.scale_cross_entropy.forward import scale_cross_entropy_forward

        kernel = scale_cross_entropy_forward
    return parts.fused_forward(kernel, hidden, weight, bias, targets, **options)


def _backward(grad, hidden, weight, bias, targets, masses, scales, ignore_index, backend, needs):
    options = {"scales": scales, "ignore_index": ignore_index, "needs": needs}
    chosen = backends.choose(OP, backend, _refusals(hidden, weight))
    if chosen == "reference":
        return parts.backward(grad, hidden, weight, bias, targets, **options)
    if chosen == "native":
        kernel = native.backward
    else:
        from pyseq.kernels.scale_cross_entropy.backward import scale_cross_entropy_backward

        kernel = scale_cross_entropy_backward
    return parts.fused_backward(kernel, grad, hidden, weight, bias, targets, masses, **options)


def _refusals(hidden, weight) -> dict[str, backends.Refusal]:
    return {
        "triton": backends.triton_refusal(hidden, lambda: limits.refuse(hidden, weight)),
        "native": backends.native_refusal(hidden, weight),
    }


def _fake(hidden, _weight, _bias, _targets, scales, *_options):
    N, dtype = hidden.shape[0], accumulation_dtype(hidden)
    losses = hidden.new_empty((len(scales), N), dtype=dtype)
    return losses, hidden.new_empty((2, 1 + len(scales), N), dtype=dtype)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:4], output[1])
    ctx.options = inputs[4:]
    ctx.mark_non_differentiable(output[1])


registration.define(OP, _signature, _forward, _fake)
registration.define_gradient(OP, _saved, _backward, trainable=3, keep=_keep)
