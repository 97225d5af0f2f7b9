"""`pyseq predict`: the most likely next symbols at one place of a stream."""

import math
import sys
from dataclasses import dataclass
from typing import Literal

from pyseq.cli import flags
from pyseq.errors import UserError

BAR = 40  # characters of the longest bar


@dataclass(frozen=True)
class PredictConfig:
    """Show the context, the most likely next symbols, and what came."""

    u16_path: str
    """The stream, or a glob of shards."""
    idx: int
    """Position of the symbol to predict, from the seq_len symbols before it."""
    ckpt: str = "model.pt"
    """The model that `pyseq train --ckpt` wrote."""
    topk: int = 10
    """How many to show."""
    io: Literal["mmap", "pread", "ram", "gpu"] = "mmap"
    """How the file is read; gpu: once, into the memory of the GPU that the model runs on."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def main(arguments: list[str]) -> int:
    """Print the prediction."""
    config = flags.parse(PredictConfig, "predict", arguments)
    if config.topk < 1:
        raise UserError(f"--topk {config.topk}; at least 1 fits")
    from pyseq.cli.symbol_text import about_another_kind, require_same_tokens, show, show_end
    from pyseq.data import U16Stream
    from pyseq.models.device import choose_device, stream_device
    from pyseq.models.predictor import load

    device = choose_device(config.device)
    predictor = load(config.ckpt, device=device)
    codec = predictor.card.codec
    kept_on = stream_device(config.io, device)
    with U16Stream(config.u16_path, io=config.io, device=kept_on) as stream:
        require_same_tokens(codec, stream)
        about_kind = about_another_kind(predictor.card, stream)
        if about_kind is not None:
            print(about_kind, file=sys.stderr)
        if not 1 <= config.idx < len(stream):
            raise UserError(
                f"--idx {config.idx} has no context or no truth in a stream of {len(stream)}"
                f" symbols; 1 to {len(stream) - 1} fits"
            )
        context = stream[max(0, config.idx - predictor.card.seq_len) : config.idx]
        truth = stream[config.idx : config.idx + 1]
    prediction = predictor.predict(context, config.topk)
    came = int(predictor.classes_of(truth)[0])
    likelihood = float(predictor.log_prob(_joined(context, truth, predictor.card.seq_len))[-1])
    print(f"context: {show_end(context.tolist(), codec)}")
    longest = float(prediction.probability[0])
    ranked = zip(prediction.classes, prediction.probability, prediction.symbols, strict=True)
    for class_, probability, (first, last) in ranked:
        bar = "#" * max(1, round(BAR * float(probability) / longest))
        name = show([first], codec) if first == last else f"{first}..{last}"
        mark = "  <- came" if int(class_) == came else ""
        print(f"{name:>14}  {float(probability):8.4%}  {bar}{mark}")
    print(f"came: {show(truth.tolist(), codec)}, given {math.exp(likelihood):.4%}")
    return 0


def _joined(context, truth, seq_len: int):
    import torch

    return torch.cat([context[-seq_len:], truth])
