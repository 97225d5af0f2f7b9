"""What small trainings on grammars need."""

import functools

import pytest

from pyseq.data.grammars import chance_level
from pyseq.training.rules import run as run_module


@pytest.fixture(autouse=True)
def quick_conclusions(monkeypatch):
    """Chance is drawn from a few completions, and no page is made: seconds less for every run."""
    monkeypatch.setattr(
        run_module, "chance_level", functools.partial(chance_level, completions=200)
    )
    monkeypatch.setattr(run_module, "write_rules_report", lambda *_: None)
