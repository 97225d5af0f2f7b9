"""Checks that every op shares, at values that no op's own tests come to."""

import pytest
import torch

from pyseq.ops import checks, gather_windows
from pyseq.ops.backends import choose


@pytest.mark.parametrize(
    ("check", "number", "message"),
    [
        (checks.finite, 1e39, "x is 1e.39; a finite number of float32 fits"),
        (checks.finite, 10**400, "a finite number of float32 fits"),
        (checks.positive, 1e-39, "x is 1e-39; a positive finite number of float32 fits, 1.18e-38"),
        (checks.positive, 1e39, "to 3.4e.38"),
    ],
)
def test_numbers_beyond_float32(check, number, message):
    with pytest.raises(ValueError, match=f"^op: .*{message}"):
        check("op", "x", number)


def test_counts_beyond_64_bits():
    with pytest.raises(ValueError, match=r"less than 2\^63 fits"):
        checks.count("op", "window", 2**63, 1)


def test_sparse_tensors():
    with pytest.raises(TypeError, match=r"^op: x is torch.sparse_coo; a dense tensor fits"):
        checks.tensor("op", "x", torch.eye(3).to_sparse())


def test_the_variable_is_named_where_it_is_wrong(monkeypatch):
    monkeypatch.setenv("PYSEQ_BACKEND", "gpu")
    with pytest.raises(ValueError, match=r"^op: PYSEQ_BACKEND is 'gpu'; known: auto"):
        choose("op", "auto", {})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": [1]}, TypeError, "out is a list; a tensor or None fits"),
        ({"out": torch.empty(2, 3, device="meta")}, ValueError, "out on meta; cpu, as stream"),
        ({"length": True}, TypeError, "length is a bool; an int fits"),
        ({"threads": True}, TypeError, "threads is a bool; an int or None fits"),
    ],
)
def test_gather_windows_refuses(options, error, message):
    stream, offsets = torch.arange(9).to(torch.uint16), torch.tensor([0, 2])
    with pytest.raises(error, match=f"^gather_windows: {message}"):
        gather_windows(stream, offsets, **{"length": 3} | options)
