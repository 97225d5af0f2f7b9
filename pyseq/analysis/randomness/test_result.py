"""What one test of a stream found, and how several are judged together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Question = Literal["marginal", "dependence"]


@dataclass(frozen=True)
class TestResult:
    """One test of one declared null.

    Attributes:
        name (str): what was tested, such as "autocorrelation, lags 1 to 64".
        question ("marginal" | "dependence"): whose null it tests: that symbols are independent
            draws of the declared law, or that they are independent draws of their own marginal.
        p_value (float): valid: under the null it is at most x with probability at most x (about x
            where `null` names an approximation).
        statistic (str): the measured value in words, such as "chi-square 65,702.1 (65,535 df)".
        null (str): where the p-value comes from, such as "exact, hypergeometric".
        symbols (int): how many symbols it read.
        finding (str): what it means if it fires, such as "symbol 17 comes too often".
    """

    __test__ = False  # no test for pytest to collect

    name: str
    question: Question
    p_value: float
    statistic: str
    null: str
    symbols: int
    finding: str = ""


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values: rejecting those up to alpha errs on any true null with chance <= alpha.

    Args:
        p_values (sequence of M floats): of all tests that were run.

    Returns:
        array (M,), float64: in the order given, at most 1.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
