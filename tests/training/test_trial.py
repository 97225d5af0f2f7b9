"""Trial steps: they measure, and leave nothing behind."""

import numpy as np
import torch

from pyseq.training.config import TrainConfig
from pyseq.training.run import prepare
from pyseq.training.trial import fastest_threads, trial_memory_mib


def test_trial_steps_leave_no_trace(tmp_path):
    np.arange(5000).astype("<u2").tofile(tmp_path / "s.u16")
    run = prepare(
        TrainConfig(
            u16_path=str(tmp_path / "s.u16"), ckpt=str(tmp_path / "m.pt"), d_model=32, nlayers=1,
            nhead=2, dim_ff=48, seq_len=16, batch=4, dropout=0.5, bins=64,
        )
    )  # fmt: skip
    weights = [p.clone() for p in run.model.parameters()]
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    assert trial_memory_mib(run) > 1
    best, seconds = fastest_threads(run)
    assert best in seconds
    assert set(seconds) == {1, threads}
    assert seconds[best] == min(seconds.values())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in run.model.parameters())
    after = run.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(after, weights, strict=True))
