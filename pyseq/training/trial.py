"""What one training step costs, found by making some before the training starts."""

import time

import torch

from pyseq.models.device import mixed_precision
from pyseq.training.callbacks import peak_memory_mib
from pyseq.training.run import Run

TIMED_STEPS = 3


def trial_step(run: Run) -> None:
    """One forward and backward pass; weights, gradients and random state are left as they were."""
    config, model = run.config, run.model.to(run.device)
    shape = (config.batch, config.seq_len + 1)
    window = torch.zeros(shape, dtype=torch.int64, device=run.device)
    autocast, _ = mixed_precision(config.use_amp, run.device)
    devices = [run.device] if run.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.autocast(run.device.type, torch.bfloat16, enabled=autocast),
    ):
        model.objective(window)[0].backward()
    model.zero_grad(set_to_none=True)


def trial_memory_mib(run: Run) -> float:
    """The process's (or the GPU's) peak memory after one step, without the optimiser's state."""
    trial_step(run)
    return peak_memory_mib()


def fastest_threads(run: Run) -> tuple[int, dict[int, float]]:
    """The number of CPU threads with which steps are fastest now, and seconds per step of each.

    PyTorch's threads wait for each other many times a step; where other programs keep a core busy,
    one thread alone can be many times faster than two. All threads and a single one are tried.
    """
    before = torch.get_num_threads()
    seconds = {}
    try:
        for threads in {before, 1}:
            torch.set_num_threads(threads)
            trial_step(run)  # the first one allocates
            taken = []
            for _ in range(TIMED_STEPS):
                began = time.perf_counter()
                trial_step(run)
                taken.append(time.perf_counter() - began)
            seconds[threads] = sorted(taken)[TIMED_STEPS // 2]
    finally:
        torch.set_num_threads(before)
    return min(seconds, key=lambda n: seconds[n]), seconds
