"""How much memory a training step needs, found by making one."""

import torch

from pyseq.training.callbacks import peak_memory_mib


def trial_step_memory(run) -> float:
    """Peak memory in MiB (as `peak_memory_mib`) after one forward and backward pass.

    Weights, gradients and random state are left as they were; the optimiser's state is not in it.
    """
    config, model = run.config, run.model.to(run.device)
    shape = (config.batch, config.seq_len + 1)
    window = torch.zeros(shape, dtype=torch.int64, device=run.device)
    devices = [run.device] if run.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.autocast(run.device.type, torch.bfloat16, enabled=config.use_amp),
    ):
        model.loss(window).backward()
    model.zero_grad(set_to_none=True)
    return peak_memory_mib()
