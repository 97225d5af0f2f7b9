"""Named streams with a known entropy rate: the answer that a model or an estimator should find.

A stream is a frozen dataclass of its parameters. The symbols are a pure function of the
parameters and the seed (all but `urandom`'s): a shorter stream is the beginning of a longer one,
whatever the chunks. Seeds go through NumPy's PCG64 or a hash, so neighbouring seeds have nothing
in common.
"""

from dataclasses import fields
from typing import Any

from pyseq.data.streams.arithmetic import Lcg16, Pcg16, TruncatedLcg, pcg_xsh_rr
from pyseq.data.streams.controls import AesCtr, HmacRolls, Pcg64, Urandom, aes_ctr, hmac_roll
from pyseq.data.streams.gbar import GbAr
from pyseq.data.streams.hidden_markov import HiddenMarkov
from pyseq.data.streams.independent import Biased, DiscretisedNormal, Uniform
from pyseq.data.streams.markov import Markov1, Markov2, max_cycle_mean
from pyseq.data.streams.periodic import Periodic
from pyseq.data.streams.random_walk import RandomWalk
from pyseq.data.streams.shift_register import Lfsr16, Xorshift32, xorshift32
from pyseq.data.streams.stream import BLOCK, Stream
from pyseq.errors import UserError

__all__ = [
    "BLOCK",
    "NEGATIVE_CONTROLS",
    "POSITIVE_CONTROLS",
    "STREAMS",
    "AesCtr",
    "Biased",
    "DiscretisedNormal",
    "GbAr",
    "HiddenMarkov",
    "HmacRolls",
    "Lcg16",
    "Lfsr16",
    "Markov1",
    "Markov2",
    "Pcg16",
    "Pcg64",
    "Periodic",
    "RandomWalk",
    "Stream",
    "TruncatedLcg",
    "Uniform",
    "Urandom",
    "Xorshift32",
    "aes_ctr",
    "hmac_roll",
    "make",
    "max_cycle_mean",
    "pcg_xsh_rr",
    "xorshift32",
]

STREAMS: dict[str, type[Stream]] = {
    stream.name: stream
    for stream in (
        Uniform,
        Biased,
        DiscretisedNormal,
        Markov1,
        Markov2,
        Periodic,
        RandomWalk,
        GbAr,
        HiddenMarkov,
        Lcg16,
        TruncatedLcg,
        Lfsr16,
        Xorshift32,
        Pcg16,
        HmacRolls,
        AesCtr,
        Pcg64,
        Urandom,
    )
}

# what an analysis must find nothing in: nobody can tell them from independent uniform draws
NEGATIVE_CONTROLS: dict[str, Stream] = {
    stream.name: stream for stream in (HmacRolls(), AesCtr(), Pcg64(), Urandom())
}

# what an analysis should find in a million symbols; `biased` and `discretised_normal` differ from
# uniform draws by their marginal only (their `independent` is True)
POSITIVE_CONTROLS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Biased(),
        DiscretisedNormal(),
        Markov1(),
        Markov2(),
        Periodic(),
        RandomWalk(),
        GbAr(),
        HiddenMarkov(),
        Lcg16(),
        TruncatedLcg(),
        Lfsr16(),
        Xorshift32(),
        Pcg16(),
    )
}


def make(name: str, **parameters: Any) -> Stream:
    """A stream by its name.

    Args:
        name (str): a key of STREAMS.
        **parameters: the fields of its dataclass; what is left out keeps its default.

    Returns:
        Stream.

    Raises:
        UserError: unknown name or parameter, or a parameter out of range.
    """
    if name not in STREAMS:
        raise UserError(f"there is no stream {name!r}; known are {', '.join(sorted(STREAMS))}")
    known = [field.name for field in fields(STREAMS[name])]  # type: ignore[arg-type]
    unknown = [key for key in parameters if key not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has no parameters"
        raise UserError(f"stream {name} has no {', '.join(unknown)}; {has}")
    return STREAMS[name](**parameters)
