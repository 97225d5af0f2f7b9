"""Recurrent layers of several models at once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from pyseq.models.rules.stacked import Stacked, StackedLayerNorm, draw_uniform
from pyseq.ops import backends, lstm

State = tuple[Tensor, ...]


class Recurrence(Stacked, ABC):
    """One or more recurrent layers."""

    @abstractmethod
    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Run over time.

        Args:
            x (Tensor (S, B, T, inputs), float32): the sequences, or what follows the state.
            state (tuple of Tensor | None): what an earlier call gave; None: zeros.

        Returns:
            tuple (Tensor (S, B, T, hidden), state): outputs, and what the last step leaves.
        """


class FusedLayers(Recurrence):
    """LSTM or GRU layers without options.

    LSTM layers in float32 on a CPU are `pyseq.ops.lstm`, all seeds at once; the rest is torch's own
    kernel, one seed after the other. A loop of steps over the whole stack, even with its backward
    pass written out, is not faster than that: at S 3, B 128, T 257 and 5 layers of 64 it took 1.3
    to 1.7 s of one core per seed, forward and backward, and torch's kernel 1.1 to 1.4 s.

    Args:
        seeds (int): S.
        inputs (int): features of the first layer's input.
        hidden (int): features of every layer's state.
        layers (int): how many.
        cell (str): "lstm" or "gru".

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ... (Parameter (S, ...)): named, shaped
            and drawn as those of torch's nn.LSTM and nn.GRU.
    """

    def __init__(
        self, seeds: int, inputs: int, hidden: int, layers: int, *, cell: str = "lstm"
    ) -> None:
        super().__init__()
        self.hidden, self.layers, self.cell = hidden, layers, cell
        gates = (4 if cell == "lstm" else 3) * hidden
        for i in range(layers):
            shapes = {
                f"weight_ih_l{i}": (gates, inputs if i == 0 else hidden),
                f"weight_hh_l{i}": (gates, hidden),
                f"bias_ih_l{i}": (gates,),
                f"bias_hh_l{i}": (gates,),
            }
            for name, shape in shapes.items():
                self.register_parameter(name, nn.Parameter(torch.empty(seeds, *shape)))

    def reset(self, generators: Sequence[Generator]) -> None:
        for parameter in self.parameters():
            draw_uniform(parameter, generators, 1 / math.sqrt(self.hidden))

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        S, B = x.shape[:2]
        if state is None:
            zeros = x.new_zeros(S, self.layers, B, self.hidden)
            state = (zeros, zeros) if self.cell == "lstm" else (zeros,)
        if self._has_native(x):
            return self._native(x, state)
        weights = [parameter.unbind() for parameter in self.parameters()]
        results = [self._one(x[s], state, [w[s] for w in weights], s) for s in range(S)]
        out, *last = (torch.stack(part) for part in zip(*results, strict=True))
        return out, tuple(last)

    def _has_native(self, x: Tensor) -> bool:
        """Whether the op has a kernel; else its loop of steps would be slower than torch's own."""
        fits = x.device.type == "cpu" and x.dtype == torch.float32
        return self.cell == "lstm" and fits and backends.refuse_native() is None

    def _native(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs (S, B, T, hidden) and state, layer by layer."""
        hidden, cell = state
        last = []
        for i in range(self.layers):
            weight_ih, weight_hh, bias_ih, bias_hh = (
                getattr(self, f"{name}_l{i}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            x, *states = lstm(x, weight_ih, weight_hh, bias_ih + bias_hh, hidden[:, i], cell[:, i])
            last.append(states)
        hidden, cell = (torch.stack(part, 1) for part in zip(*last, strict=True))
        return x, (hidden, cell)

    def _one(self, x: Tensor, state: State, weights: list[Tensor], s: int) -> tuple[Tensor, ...]:
        """Outputs (B, T, hidden) and state of one seed."""
        settings = (True, self.layers, 0.0, self.training, False, True)
        if self.cell == "lstm":
            return torch.lstm(x, [part[s] for part in state], weights, *settings)
        return torch.gru(x, state[0][s], weights, *settings)


class CellLayer(Recurrence):
    """One LSTM layer whose cell is normalised or has peepholes, all seeds in each step.

    With LN as layer normalisation (nothing without `layer_norm`) and p * c only with `peephole`:
    i, f, g, o = LN(W x_t) + LN(U h_(t-1)) + b, where i and f also get p_i * c_(t-1) and
    p_f * c_(t-1); c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g); o also gets p_o * c_t;
    h_t = sigmoid(o) tanh(LN(c_t)).

    Args:
        seeds (int): S.
        inputs (int): features of the input.
        hidden (int): features of the state.
        layer_norm (bool): whether the two maps and the cell state are normalised.
        peephole (bool): whether the gates see the cell state.

    Source: Ba et al. 2016, arXiv 1607.06450, supplement; Gers et al. 2002, JMLR 3.
    """

    def __init__(
        self, seeds: int, inputs: int, hidden: int, *, layer_norm: bool, peephole: bool
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight_ih = nn.Parameter(torch.empty(seeds, 4 * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(seeds, 4 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(seeds, 4 * hidden))
        self.peephole = nn.Parameter(torch.empty(seeds, 3, hidden)) if peephole else None
        norm = StackedLayerNorm if layer_norm else _nothing
        self.norm_x, self.norm_h = norm(seeds, 4 * hidden), norm(seeds, 4 * hidden)
        self.norm_c = norm(seeds, hidden)

    def reset(self, generators: Sequence[Generator]) -> None:
        super().reset(generators)
        for parameter in (self.weight_ih, self.weight_hh, self.bias, self.peephole):
            if parameter is not None:
                draw_uniform(parameter, generators, 1 / math.sqrt(self.hidden))

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        S, B, T, _ = x.shape
        if state is None:
            state = (x.new_zeros(S, B, self.hidden),) * 2
        h, c = state
        inputs = torch.bmm(x.flatten(1, 2), self.weight_ih.mT).unflatten(1, (B, T))
        if self.norm_x is not None:
            inputs = self.norm_x(inputs)
        inputs = inputs + self.bias[:, None, None]
        weight = self.weight_hh.mT
        outputs = []
        for x_t in inputs.unbind(2):  # (S, B, 4 hidden)
            recurrent = torch.bmm(h, weight)
            gates = x_t + (recurrent if self.norm_h is None else self.norm_h(recurrent))
            h, c = self._step(gates, c)
            outputs.append(h)
        return torch.stack(outputs, 2), (h, c)

    def _step(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, -1)
        if self.peephole is not None:
            see_i, see_f, see_o = self.peephole[:, :, None].unbind(1)  # each (S, 1, hidden)
            i, f = i + see_i * c, f + see_f * c
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        if self.peephole is not None:
            o = o + see_o * c
        return o.sigmoid() * (c if self.norm_c is None else self.norm_c(c)).tanh(), c


def _nothing(seeds: int, width: int) -> None:
    return None
