"""bfloat16 is computed in where the machine has products of it, and only there."""

import pytest
import torch

from pyseq.models import device
from pyseq.models.device import mixed_precision
from pyseq.training.lightning_trainer import make_trainer
from pyseq.training.run import prepare
from pyseq.training.trial import trial_step
from tests.training.small_runs import config

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("multiplies", [False, True])
def test_bfloat16_only_where_it_is_multiplied(monkeypatch, multiplies):
    monkeypatch.setattr(device, "_multiplies_bfloat16", lambda: multiplies)
    assert mixed_precision(False, CPU) == (False, None)
    assert mixed_precision(True, GPU) == (True, None)
    computes, remark = mixed_precision(True, CPU)
    assert computes == multiplies
    assert (remark is None) == multiplies


@pytest.mark.parametrize("multiplies", [False, True])
def test_a_run_computes_so_and_says_so(monkeypatch, tmp_path, multiplies):
    monkeypatch.setattr(device, "_multiplies_bfloat16", lambda: multiplies)
    stream = tmp_path / "stream.u16"
    torch.arange(4000).remainder(7).to(torch.uint16).numpy().tofile(stream)
    run = prepare(config(str(stream), tmp_path, use_amp=True))
    seen = []
    objective = run.model.objective

    def watched(window):
        seen.append(torch.is_autocast_enabled("cpu"))
        return objective(window)

    monkeypatch.setattr(run.model, "objective", watched)
    trial_step(run)
    assert seen == [multiplies]
    trainer = make_trainer(run.config, run.device)
    assert trainer.precision == ("bf16-mixed" if multiplies else "32-true")
    assert any("computing in float32" in remark for remark in run.remarks) != multiplies
    assert run.config.use_amp  # as asked: on another machine it may resume in bfloat16
