"""`pyseq generate`: continue a stream, or a text, with a trained model."""

import itertools
import math
import os
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pyseq.cli import flags
from pyseq.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, device

    from pyseq.data.tokenizer import Codec
    from pyseq.models.checkpoint import ModelCard

MOST_RATE = 2**31 - 1  # samples of two bytes a second: a .wav counts bytes a second in 32 bits


@dataclass(frozen=True)
class GenerateConfig:
    """Continue a place of a stream, or a text, by sampling from a trained model."""

    ckpt: str = "model.pt"
    """The model that `pyseq train --ckpt` wrote."""
    u16_path: str | None = None
    """The stream to continue, or a glob of shards."""
    idx: int | None = None
    """Position of the first symbol to generate, from the seq_len symbols before it; default: the
    beginning of what `pyseq evaluate` scores (the test range, on the stream trained on)."""
    prompt: str | None = None
    """The text to continue, in place of a stream; for models of bytes or of tokens of text."""
    n: int = 200
    """Symbols to generate."""
    temperature: float = 1.0
    """Divides the logits: below 1 the likely becomes likelier; 0 takes the most likely always."""
    topk: int | None = None
    """Sample from so many of the most likely classes only."""
    seed: int = 0
    """Of the sampling; the same seed gives the same symbols."""
    cache: bool = True
    """Keep what was computed for earlier symbols; --no_cache computes it anew at every step, which
    takes longer and gives the same symbols (but where rounding decides between two)."""
    out: str | None = None
    """Also write the continuation as a stream, or where the name ends in .wav, as sound."""
    overwrite: bool = False
    """Replace what --out names."""
    rate: int = 8000
    """Samples per second of a .wav."""
    io: Literal["mmap", "pread", "ram", "gpu"] = "mmap"
    """How the file is read; gpu: once, into the memory of the GPU that the model runs on."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""

    def check(self) -> None:
        """Raise UserError, one sentence, if a flag makes no sense."""
        for name in ("n", "topk", "rate"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; at least 1 fits")
        if self.rate > MOST_RATE:
            raise UserError(f"--rate {self.rate}; at most {MOST_RATE} fits a .wav")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"--temperature {self.temperature}; 0 or more fits")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}; 0 or more fits")
        if (self.u16_path is None) == (self.prompt is None):
            raise UserError("generate takes either --u16_path or --prompt")
        if self.prompt is not None and self.idx is not None:
            raise UserError("--idx is a position in --u16_path; --prompt has none")
        if self.prompt == "":
            raise UserError("--prompt is empty; at least one character fits")


def main(arguments: list[str]) -> int:
    """Print the continuation as it is made, and write it if asked to."""
    config = flags.parse(GenerateConfig, "generate", arguments)
    config.check()
    from pyseq.cli.symbol_text import readable, show_end
    from pyseq.models.device import choose_device
    from pyseq.models.predictor import load

    predictor = load(config.ckpt, device=choose_device(config.device))
    card, out = predictor.card, None if config.out is None else Path(config.out)
    if out is not None:
        _check_output(out, config, card)
    codec, context = card.codec, _context(config, card, predictor.device)
    endless = predictor.continuation(
        context,
        temperature=config.temperature,
        topk=config.topk,
        seed=config.seed,
        cache=config.cache,
    )
    if config.prompt is None:
        print(f"context: {show_end(context.tolist(), codec)}")
    else:
        print(f"context: {''.join(readable([os.fsencode(config.prompt)]))}")
    print("continuation:")
    shown, kept = itertools.tee(itertools.islice(endless, config.n))
    _print(shown, codec)
    if out is not None:
        _write(out, np.fromiter(kept, np.uint16), config, card)
    return 0


def _context(config: GenerateConfig, card: "ModelCard", place: "device") -> "Tensor":
    """The symbols to continue, (T,) uint16; T at least 1."""
    import torch

    from pyseq.analysis.held_out import ranges
    from pyseq.cli.symbol_text import about_another_kind, require_same_tokens
    from pyseq.data import U16Stream
    from pyseq.models.device import stream_device

    if config.prompt is not None:
        if card.codec is None:
            raise UserError("--prompt needs a model of text; this one is of numbers")
        return torch.from_numpy(card.codec.encode(os.fsencode(config.prompt)))
    assert config.u16_path is not None
    kept_on = stream_device(config.io, place)
    with U16Stream(config.u16_path, io=config.io, device=kept_on) as stream:
        require_same_tokens(card.codec, stream)
        about_kind = about_another_kind(card, stream)
        if about_kind is not None:
            print(about_kind, file=sys.stderr)
        idx = ranges("auto", stream, card)[1][0] if config.idx is None else config.idx
        if not 1 <= idx <= len(stream):
            raise UserError(
                f"--idx {idx} has no context in a stream of {len(stream)} symbols;"
                f" 1 to {len(stream)} fits"
            )
        return stream[max(0, idx - card.seq_len) : idx]


def _print(symbols: Iterator[int], codec: "Codec | None") -> None:
    """Print symbols as they come, text as far as it can be read."""
    from pyseq.cli.symbol_text import readable

    if codec is None:
        texts: Iterator[str] = (f"{symbol} " for symbol in symbols)
    else:
        texts = readable(codec.decode([symbol]) for symbol in symbols)
    encoding = sys.stdout.encoding or "ascii"
    for text in texts:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    print()


def _check_output(path: Path, config: GenerateConfig, card: "ModelCard") -> None:
    """Refuse what could not be written, or heard, before anything is computed."""
    from pyseq.data.stream_info import MAX_ALPHABET, require_new

    if not config.overwrite:
        require_new(path)
    if os.path.isdir(path) or not os.path.isdir(path.parent):
        what = "it is a folder" if os.path.isdir(path) else f"there is no folder {path.parent}"
        raise UserError(f"{path} cannot be written: {what}")
    if _is_sound(path) and (card.kind, card.binning.alphabet) != ("values", MAX_ALPHABET):
        raise UserError(
            f"{path} is sound, and the model's symbols are {card.binning.alphabet} {card.kind};"
            f" {MAX_ALPHABET} values fit, as `pyseq data wav` makes them"
        )


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() == ".wav"


def _write(path: Path, symbols: np.ndarray, config: GenerateConfig, card: "ModelCard") -> None:
    if _is_sound(path):
        _write_wav(path, symbols, config.rate)
        print(f"{path}: {len(symbols):,} samples, {config.rate} a second")
        return
    from pyseq.data.stream_info import write_stream
    from pyseq.data.tokenizer import Tokenizer

    settings = ("temperature", "topk", "seed", "u16_path", "idx", "prompt")
    given = {name: getattr(config, name) for name in settings}
    chosen = ", ".join(f"{name} {value!r}" for name, value in given.items() if value is not None)
    info = write_stream(
        path,
        [symbols],
        alphabet=card.binning.alphabet,
        kind=card.kind,
        source=f"generated by {config.ckpt}: {chosen}",
        tokenizer=card.codec if isinstance(card.codec, Tokenizer) else None,
    )
    print(f"{path}: {info.count:,} symbols, sha256 {info.sha256[:12]}")


def _write_wav(path: Path, symbols: np.ndarray, rate: int) -> None:
    from pyseq.data.durable_file import replace_file
    from pyseq.data.importers import SIGN_OFFSET

    samples = (symbols.astype(np.int32) - SIGN_OFFSET).astype(np.int16)

    def write(temporary: Path) -> None:
        with wave.open(os.fspath(temporary), "wb") as file:
            file.setparams((1, 2, rate, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())  # in native byte order; the module knows

    replace_file(path, write)
