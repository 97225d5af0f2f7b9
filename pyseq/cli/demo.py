"""`pyseq demo`: the whole chain on real text that every machine has."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyseq.cli import flags
from pyseq.errors import UserError

if TYPE_CHECKING:
    from pyseq.training.config import TrainConfig
    from pyseq.training.run import Run


@dataclass(frozen=True)
class DemoConfig:
    """Make a stream from Python's standard library, train about two minutes, report."""

    out: str = "demo"
    """Folder for the stream, the model and the report; made if it is not there."""
    minutes: float = 2.0
    """Time to train."""
    seed: int = 0
    """Seed of the training."""


def main(arguments: list[str]) -> int:
    """Run the chain and print each part's result."""
    config = flags.parse(DemoConfig, "demo", arguments)
    if not config.minutes > 0:
        raise UserError(f"--minutes {config.minutes}; a positive number fits")
    from pyseq.cli.train import train
    from pyseq.data.importers import stdlib_text
    from pyseq.data.stream_info import write_stream
    from pyseq.training.run import prepare

    began = time.monotonic()
    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be made: {error.strerror}") from error
    stream = folder / "stdlib.u16"
    found = stdlib_text()
    info = write_stream(
        stream, found.chunks, alphabet=found.alphabet, kind=found.kind, source=found.source
    )
    print(f"stream: {stream}, {info.count:,} symbols ({info.source})")
    run = prepare(_training(config, folder, stream))
    train(_with_fastest_threads(run) if run.device.type == "cpu" else run)
    print(f"the demo took {time.monotonic() - began:.0f} s")
    return 0


def _bfloat16_is_fast() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in the oldest torch we accept
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _training(config: DemoConfig, folder: Path, stream: Path) -> "TrainConfig":
    from pyseq.training.config import TrainConfig

    return TrainConfig(
        u16_path=str(stream),
        ckpt=str(folder / "model.pt"),
        # About a million parameters: in two minutes on two cores a larger one sees too little.
        d_model=160,
        nlayers=3,
        nhead=5,
        dim_ff=640,
        seq_len=128,
        batch=16,
        stride=1,
        lr=3e-3,
        weight_decay=0.1,
        max_time=config.minutes,
        use_amp=_bfloat16_is_fast(),
        split=(0.85, 0.05, 0.1),
        eval_every=250,
        eval_symbols=100_000,
        save_every=1000,
        seed=config.seed,
    )


def _with_fastest_threads(run: "Run") -> "Run":
    """The same run with as many CPU threads as serve it best just now."""
    import torch

    from pyseq.training.trial import fastest_threads

    threads, seconds = fastest_threads(run)
    tried = ", ".join(f"{n}: {s:.3f} s" for n, s in sorted(seconds.items()))
    print(f"threads: {threads} (seconds a step with {tried})")
    torch.set_num_threads(threads)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, threads=threads))
