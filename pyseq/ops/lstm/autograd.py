"""lstm as a registered op: schema, choice of backend, gradient."""

from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.lstm import native, reference
from pyseq.ops.precision import accumulation_dtype

OP = "lstm"
TRAINABLE = 6  # x, weight_ih, weight_hh, bias, hidden, cell

_tensors = "Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor bias, Tensor hidden, Tensor cell"
_options = "bool taped, str backend"
# tape (S, T, B, 5H), in the accumulation dtype, as `reference.layer` tells; (0,) unless taped.
_outputs = "(Tensor outputs, Tensor hidden_after, Tensor cell_after, Tensor tape)"
_saved = f"{_tensors}, Tensor tape, {_options}"


def _forward(x, weight_ih, weight_hh, bias, hidden, cell, taped, backend):
    tensors = (x, weight_ih, weight_hh, bias, hidden, cell)
    chosen = backends.choose(OP, backend, _refusals(x))
    if chosen == "native" and not native.is_empty(x, weight_hh):
        outputs, *states, tape = native.forward(*tensors, taped)
    else:
        outputs, *states, tape = reference.layer(*tensors)
        outputs, tape = outputs.to(x.dtype), tape if taped else tape.new_empty(0)
        if x.shape[2] == 0:  # the last states are the first, with which they may share no memory
            states = [state.clone() for state in states]
    return outputs, *(state.to(x.dtype) for state in states), tape


def _backward(
    d_outputs, d_hidden, d_cell,
    x, weight_ih, weight_hh, bias, hidden, cell, tape, taped, backend, needs,
):  # fmt: skip
    tensors = (x, weight_ih, weight_hh, bias, hidden, cell)
    if not taped:
        tape = _forward(*tensors, True, backend)[3]
    grads = (d_outputs, d_hidden, d_cell)
    given = [x, *(grad for grad in grads if grad is not None)]
    chosen = backends.choose(OP, backend, _refusals(*given))
    if chosen == "native" and not native.is_empty(x, weight_hh):
        return native.backward(*grads, *tensors, tape, needs)
    return reference.gradients(*grads, x, weight_ih, weight_hh, hidden, cell, tape)


def _refusals(*tensors: Tensor) -> dict[str, backends.Refusal]:
    return {"native": backends.native_refusal(*tensors)}


def _fake(x, _weight_ih, weight_hh, _bias, hidden, cell, taped, _backend):
    S, B, T, _ = x.shape
    H = weight_hh.shape[2]
    tape = (S, T, B, reference.TAPED * H) if taped else (0,)
    states = [state.new_empty(state.shape) for state in (hidden, cell)]
    return x.new_empty(S, B, T, H), *states, x.new_empty(tape, dtype=accumulation_dtype(x))


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:TRAINABLE], output[3])
    ctx.options = inputs[TRAINABLE:]
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)  # zeros like the outputs take as long as a part of the work


registration.define(OP, f"({_tensors}, {_options}) -> {_outputs}", _forward, _fake)
registration.define_gradient(
    OP,
    _saved,
    _backward,
    trainable=TRAINABLE,
    keep=_keep,
    grads=("d_outputs", "d_hidden_after", "d_cell_after"),
)
