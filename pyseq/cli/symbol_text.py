"""Symbols as people read them: text where they are bytes or tokens of text, else numbers."""

import codecs
from collections.abc import Iterable, Iterator

from pyseq.data import U16Stream
from pyseq.data.stream_info import read_info
from pyseq.data.tokenizer import Codec, Tokenizer
from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard

SHOWN = 24  # symbols of context that are printed
# A model may spell what would move the cursor or colour the terminal.
CONTROL = {
    code: repr(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160))
    if chr(code) not in "\n\t"
}


def require_same_tokens(codec: Codec | None, stream: U16Stream) -> None:
    """Refuse a stream whose description tells of other tokens than the model knows.

    Args:
        codec (Codec | None): of the model.
        stream (U16Stream): the symbols it is to read; without a description nothing is known.

    Raises:
        UserError: one has a tokenizer that the other has not.
    """
    known = codec.sha256 if isinstance(codec, Tokenizer) else None
    for shard in stream.shards:
        info = read_info(shard.path)
        if info is not None and info.tokenizer != known:
            raise UserError(
                f"{shard.path} holds other tokens than the model was trained on;"
                " `pyseq data text --tokenizer` makes streams of the same ones"
            )


def about_another_kind(card: ModelCard, stream: U16Stream) -> str | None:
    """A sentence if the stream's description tells of other symbols than the model was made for.

    Args:
        card (ModelCard): of the model.
        stream (U16Stream): the symbols it is to read; without a description nothing is known.
    """
    for shard in stream.shards:
        info = read_info(shard.path)
        known = (card.binning.alphabet, card.kind)
        if info is not None and (info.alphabet, info.kind) != known:
            return (
                f"{shard.path} holds {info.alphabet} {info.kind} by its JSON, and the model was"
                f" made for {known[0]} {known[1]}"
            )
    return None


def show(symbols: list[int], codec: Codec | None) -> str:
    """Text as Python writes its bytes, other symbols as numbers."""
    return " ".join(map(str, symbols)) if codec is None else repr(codec.decode(symbols))[1:]


def show_end(symbols: list[int], codec: Codec | None) -> str:
    """The last `SHOWN` symbols."""
    return show(symbols[-SHOWN:], codec)


def readable(pieces: Iterable[bytes]) -> Iterator[str]:
    """Text in UTF-8 as it comes in, each character when it is whole.

    Args:
        pieces (iterable of bytes): the text; characters may be cut anywhere.

    Yields:
        str: what can be read so far; other bytes, and control characters, as Python writes them.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for piece in pieces:
        yield decoder.decode(piece).translate(CONTROL)
    yield decoder.decode(b"", final=True).translate(CONTROL)
