"""Calls too short for their launches: captured once in a CUDA graph, several after one another."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Call, rotate

WARMUPS = 3  # calls before a capture: kernels are compiled, handles and workspaces made


def in_turn(calls: Sequence[Call], device: str) -> Call:
    """The calls one after the other: on CUDA all of them in one graph, where they let themselves.

    Results of a graph stay in its memory, so as many calls as do not fit in the cache keep it cold.
    """
    following = rotate(calls)

    def plain() -> Any:
        return following()()

    if device != "cuda":
        return plain
    try:
        return _Graph(calls, plain)
    except Exception:  # whatever a contestant does that cannot be captured
        torch.cuda.synchronize()
        return _WithoutGraph(plain)


def each_set(
    function: Callable[..., dict[str, Tensor]], sets: Sequence[tuple[Tensor, ...]], device: str
) -> Call:
    """`function` on one set of tensors after the other; gives the set's number and the result."""

    def call(number: int) -> tuple[int, dict[str, Tensor]]:
        return number, function(*sets[number])

    return in_turn([partial(call, number) for number in range(len(sets))], device)


class _Graph:
    """Runs all calls by replaying their launches; returns the result of another one each time."""

    def __init__(self, calls: Sequence[Call], plain: Call):
        self.plain, self.repeats = plain, len(calls)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(max(WARMUPS, len(calls))):
                plain()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            results = [call() for call in calls]
        self._following = rotate(results)

    def __call__(self) -> Any:
        self._graph.replay()
        return self._following()


class _WithoutGraph:
    """The plain call, with a note in its row."""

    note = ", no graph"

    def __init__(self, plain: Call):
        self._plain = plain

    def __call__(self) -> Any:
        return self._plain()
