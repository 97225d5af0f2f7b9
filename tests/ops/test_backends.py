"""The resolver: named backends never fall back, auto does and says so once."""

import logging
from types import SimpleNamespace

import pytest
import torch

from pyseq.errors import BackendUnavailable
from pyseq.kernels import launch
from pyseq.ops import backends


def served():
    return None


def refused():
    return "no such luck"


@pytest.fixture(autouse=True)
def _forget_reports(monkeypatch):
    monkeypatch.setattr(backends, "_reported", set())
    monkeypatch.delenv("PYSEQ_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_auto_takes_the_first_that_serves():
    assert backends.choose("op", "auto", {"triton": refused, "native": served}) == "native"
    assert backends.choose("op", "auto", {"triton": served, "native": served}) == "triton"
    assert backends.choose("op", "auto", {"native": refused}) == "reference"
    assert backends.choose("op", "auto", {}) == "reference"


def test_a_named_backend_serves_or_raises_with_the_reason():
    assert backends.choose("op", "native", {"native": served}) == "native"
    assert backends.choose("op", "reference", {"native": served}) == "reference"
    with pytest.raises(BackendUnavailable, match=r"op: backend 'native' cannot .* no such luck"):
        backends.choose("op", "native", {"native": refused, "triton": served})
    with pytest.raises(BackendUnavailable, match="op has no triton code"):
        backends.choose("op", "triton", {"native": served})


def test_the_interpreter_serves_only_those_who_name_it(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    refusals = {"triton": served, "native": served}
    assert backends.choose("op", "auto", refusals) == "native"
    assert backends.choose("op", "auto", {"triton": served}) == "reference"
    assert backends.choose("op", "triton", refusals) == "triton"


def test_what_triton_refuses(monkeypatch):
    half, double = torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float64)
    assert backends.triton_refusal(half)() == "the tensors are on cpu, not on cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "float64 is not served" in backends.triton_refusal(double)()
    assert "interpreter multiplies bfloat16 wrongly" in backends.triton_refusal(half)()
    assert "on meta" in backends.triton_refusal(half.to("meta"))()
    assert backends.triton_refusal(half.float())() is None
    assert backends.triton_refusal(half.float(), refused)() == "no such luck"
    monkeypatch.setattr(launch, "capability", lambda _x: 75)
    on_gpu = SimpleNamespace(dtype=torch.float16, device=torch.device("cuda", 1))
    assert backends.triton_refusal(on_gpu)() == (
        "cuda:1 has compute capability 7.5; 8.0 or newer fits"
    )


@pytest.mark.parametrize("name", ["cuda", "", "AUTO"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match="known: auto, reference, native, triton"):
        backends.choose("op", name, {})


def test_the_environment_replaces_only_auto(monkeypatch):
    monkeypatch.setenv("PYSEQ_BACKEND", "reference")
    assert backends.choose("op", "auto", {"native": served}) == "reference"
    assert backends.choose("op", "native", {"native": served}) == "native"
    monkeypatch.setenv("PYSEQ_BACKEND", "native")
    with pytest.raises(BackendUnavailable):
        backends.choose("op", "auto", {"native": refused})
    monkeypatch.setenv("PYSEQ_BACKEND", "fast")
    with pytest.raises(ValueError, match="'fast'"):
        backends.choose("op", "auto", {"native": served})


def test_a_fallback_is_logged_once_per_case(caplog):
    with caplog.at_level(logging.INFO, logger="pyseq"):
        for _ in range(3):
            backends.choose("op", "auto", {"native": refused})
        assert len(caplog.records) == 1
        assert "op: auto chose reference (native: no such luck)" in caplog.text
        backends.choose("op", "auto", {"native": lambda: "another reason"})
        assert len(caplog.records) == 2


def test_an_unbuilt_checkout_is_a_warning_with_the_cure(caplog, monkeypatch):
    monkeypatch.setattr(backends, "_load_core", lambda: (None, backends.NOT_BUILT))
    with caplog.at_level(logging.INFO, logger="pyseq"):
        backends.choose("op", "auto", {"native": backends.refuse_native})
    assert caplog.records[0].levelno == logging.WARNING
    assert "pip install -e ." in caplog.text
    with pytest.raises(RuntimeError, match=r"pip install -e \."):
        backends.core()


def test_the_core_is_built_where_the_tests_run():
    assert backends.refuse_native() is None
