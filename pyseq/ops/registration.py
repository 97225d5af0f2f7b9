"""How an op is registered with PyTorch: its schema, its code, its fake and its gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pyseq.ops.precision import without_autocast

_library = torch.library.Library("pyseq", "FRAGMENT")


def define(
    op: str, signature: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    """Register ``torch.ops.pyseq.<op>`` for every device.

    Args:
        op (str): the op's name.
        signature (str): "(Tensor x, ...) -> Tensor", in the language of PyTorch's schemas.
        implementation (Callable): the op; it chooses the backend itself, so that nothing traces
            the choice. Autograd and autocast are off inside it.
        fake (Callable): makes empty outputs of the right shape, dtype and strides.
    """

    def alone(*arguments):
        first = next(x for x in arguments if isinstance(x, Tensor))
        with torch.no_grad(), without_autocast(first.device):
            return implementation(*arguments)

    _library.define(op + signature)
    _library.impl(op, alone, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pyseq::{op}", fake, lib=_library)


def call(op: str, *arguments: Any) -> Any:
    """``torch.ops.pyseq.<op>(*arguments)``, the last of which is the backend's name.

    Raises:
        TypeError: the backend is no string.
        RuntimeError: forward mode is asked for, for which PyTorch would silently take 0.
    """
    if not isinstance(arguments[-1], str):
        raise TypeError(f"{op}: backend is a {type(arguments[-1]).__name__}; a str fits")
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:
        tensors = (x for x in arguments if isinstance(x, Tensor))
        if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
            raise RuntimeError(
                f"{op}: no derivative in forward mode (jvp, jacfwd); reverse mode, as by backward,"
                " fits"
            )
    return getattr(torch.ops.pyseq, op)(*arguments)


def define_gradient(
    op: str,
    saved: str,
    implementation: Callable[..., Sequence[Any]],
    *,
    trainable: int,
    keep: Callable[..., None],
    grads: Sequence[str] = (),
) -> None:
    """Register ``<op>_backward(grad, <saved>, bool[] needs)`` and make it the op's gradient.

    A second derivative is refused, not left out.

    Args:
        op (str): the op's name.
        saved (str): what the gradient is made from, in the language of PyTorch's schemas: first the
            op's first `trainable` inputs (any that is not needed may be None), then the other
            tensors that `keep` saved, then its options.
        implementation (Callable): implementation(grad, <saved>, needs) returns a gradient for each
            trainable input in any dtype and strides, which are made the input's; what `needs` does
            not ask for may be None.
        trainable (int): how many of the op's inputs, counted from the first, have a gradient.
        keep (Callable): keep(ctx, inputs, output) saves tensors and sets ctx.options.
        grads (Sequence[str]): of an op with several outputs, what the gradients of the first ones
            are called, in place of grad; `keep` may let those that are 0 be None. Empty: only the
            first output has a gradient.
    """
    given = ", ".join(f"Tensor? {name}" for name in grads) or "Tensor grad"
    outputs = len(grads) or 1

    def backward(*arguments):
        found = implementation(*arguments)
        inputs = arguments[outputs : outputs + trainable]
        trained = zip(inputs, found, arguments[-1], strict=True)
        others = [x for x in arguments[:outputs] if x is not None]
        return [_as_input(x, gradient, others) for x, gradient, need in trained if need]

    def fake(*arguments):
        trained = zip(arguments[outputs : outputs + trainable], arguments[-1], strict=True)
        return [torch.empty_like(x) for x, need in trained if need]

    def differentiate(ctx, *every_grad):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(f"{op}: no second derivative; a backward without create_graph fits")
        needs = ctx.needs_input_grad[:trainable]
        found = iter(registered(*every_grad[:outputs], *ctx.saved_tensors, *ctx.options, needs))
        constants = len(ctx.needs_input_grad) - trainable
        return (*(next(found) if need else None for need in needs), *[None] * constants)

    define(f"{op}_backward", f"({given}, {saved}, bool[] needs) -> Tensor[]", backward, fake)
    registered = getattr(torch.ops.pyseq, f"{op}_backward")
    torch.library.register_autograd(f"pyseq::{op}", differentiate, setup_context=keep, lib=_library)


def keep_first(tensors: int) -> Callable[..., None]:
    """For `define_gradient`: save the first inputs, which are tensors; the others are options."""

    def keep(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    return keep


def _as_input(x: Tensor, gradient: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """The gradient in the dtype and memory order of its input, not copied if it has them.

    But never one of `grads` itself: an op's output may not share memory with its input.
    """
    strides = torch.empty_like(x, device="meta").stride()
    fits = gradient.dtype == x.dtype and gradient.stride() == strides
    if fits and all(gradient.data_ptr() != grad.data_ptr() for grad in grads):
        return gradient
    return torch.empty_like(x).copy_(gradient)
