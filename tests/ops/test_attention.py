"""Which query sees which key: what the attention ops and their oracles share."""

import itertools

from pyseq.ops import attention
from tests.correctness import sees, undocumented_parameters


def test_visibility():
    visible = attention.visibility(3, 5, causal=True, window=2, prefix=1)
    assert visible.int().tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]
    for T, S, causal, window, prefix in itertools.product(
        range(4), range(4), [False, True], [None, 1, 2], [0, 1]
    ):
        visible = attention.visibility(T, S, causal=causal, window=window, prefix=prefix)
        expected = [[sees(t, s, T, S, causal, window, prefix) for s in range(S)] for t in range(T)]
        assert visible.tolist() == expected
        first = next((t for t in range(T) if any(expected[t])), T)
        assert attention.first_seeing_row(T, S, causal, window, prefix) == first
    assert undocumented_parameters(attention.visibility) == []
