"""Byte-pair encoding of bytes: any bytes become tokens, and come back exactly."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET
from pyseq.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

PIECE_BYTES = 2**16  # tokenized at a time by one thread
BATCH = 16  # pieces

# The library works on characters. Each byte goes in as the character of its number, so that no byte
# is invalid and a token has as many characters as it has bytes.
CHARACTERS = "latin-1"
BYTES = [chr(byte) for byte in range(256)]

# No token crosses these borders; a newline ends whatever it is in, so that text which is cut after
# newlines has the tokens of the whole. Bytes of other scripts count as letters.
BORDERS = "|".join(
    [
        " ?[A-Za-z\x80-\xff]+",
        " ?[0-9]{1,3}",
        " ?[^\\sA-Za-z0-9\x80-\xff]+\n?",
        "[ \t\r\f\v]*\n",
        "[ \t\r\f\v]+(?=[ \t\r\f\v])",  # all but the last, which belongs to the word behind it
        "[ \t\r\f\v]",
    ]
)


class Tokenizer:
    """Bytes to tokens and back, by merges of frequent pairs.

    Tokens 0 to 255 are the bytes, each later one is two earlier ones side by side. All bytes can be
    encoded, text or not, and `decode` gives back what `encode` took.

    Args:
        json (str): as `learn` makes it; the format of the `tokenizers` library.

    Attributes:
        json (str): the same.
        tokens (tuple of bytes): what each token stands for.

    Raises:
        UserError: the JSON holds no such tokenizer.

    Source: Sennrich, Haddow and Birch 2016, Neural machine translation of rare words with subword
        units; on bytes, Radford et al. 2019 (GPT-2).
    """

    def __init__(self, json: str):
        import tokenizers

        self.json = json
        try:
            self._library = tokenizers.Tokenizer.from_str(json)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"no tokenizer of the tokenizers library: {error}") from error
        numbers = self._library.get_vocab()
        characters = sorted(numbers, key=numbers.__getitem__)
        if (
            _rules(self._library) != _rules(_unlearned())
            or characters[:256] != BYTES
            or [numbers[token] for token in characters] != list(range(len(numbers)))
            or len(numbers) > MAX_ALPHABET
            or not all(token and max(token) <= BYTES[-1] for token in characters)
        ):
            raise UserError("no tokenizer whose tokens are bytes, as pyseq data makes them")
        self.tokens = tuple(token.encode(CHARACTERS) for token in characters)

    @staticmethod
    def learn(chunks: Iterable[bytes], alphabet: int) -> "Tokenizer":
        """Merge the most frequent pair of neighbours into a new token, again and again.

        The same bytes give the same tokenizer. Memory grows with the number of different words,
        not with the length of the text.

        Args:
            chunks (iterable of bytes): the text, in order; how it is cut does not matter.
            alphabet (int): tokens to make, bytes among them; 256..65536. There will be fewer where
                the text has no more pairs that occur twice.

        Returns:
            Tokenizer.

        Raises:
            UserError: the alphabet is out of its range.
        """
        from tokenizers import trainers

        if not 256 <= alphabet <= MAX_ALPHABET:
            raise UserError(f"--bpe {alphabet}; 256 to {MAX_ALPHABET} tokens fit")
        library = _unlearned()
        trainer = trainers.BpeTrainer(
            vocab_size=alphabet, min_frequency=2, initial_alphabet=BYTES, show_progress=False
        )
        pieces = (piece.decode(CHARACTERS) for piece in _pieces(chunks))
        library.train_from_iterator(pieces, trainer)
        return Tokenizer(library.to_str())

    @staticmethod
    def read(path: Path) -> "Tokenizer":
        """The tokenizer in a file.

        Args:
            path (Path): the file, as `pyseq data text --bpe` wrote it beside a stream.

        Raises:
            UserError: the file is missing or holds something else.
        """
        try:
            return Tokenizer(path.read_bytes().decode(errors="replace"))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except UserError as error:
            raise UserError(f"{path} holds {error}") from error

    @property
    def alphabet(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)

    @cached_property
    def sha256(self) -> str:
        """Hash of the JSON, 64 hexadecimal digits: equal tokenizers have equal ones."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes that each token stands for, (alphabet,) int64."""
        return np.array([len(token) for token in self.tokens])

    def encode_chunks(self, chunks: Iterable[bytes]) -> Iterator[np.ndarray]:
        """The tokens of a text of any length, a part at a time.

        Args:
            chunks (iterable of bytes): the text, in order; how it is cut does not matter.

        Yields:
            ndarray (n,), uint16: the next tokens.
        """
        pieces = _pieces(chunks)
        while batch := [piece.decode(CHARACTERS) for piece in itertools.islice(pieces, BATCH)]:
            encoded = self._library.encode_batch_fast(batch, add_special_tokens=False)
            yield np.concatenate([np.array(piece.ids, np.uint16) for piece in encoded])

    def encode(self, data: bytes) -> np.ndarray:
        """The tokens of `data`, (n,) uint16."""
        return np.concatenate([np.empty(0, np.uint16), *self.encode_chunks([data])])

    def decode(self, symbols: Iterable[int]) -> bytes:
        """The bytes that `symbols` (0..alphabet-1) stand for."""
        return b"".join(self.tokens[symbol] for symbol in symbols)


class Bytes:
    """What `Tokenizer` does, for streams whose symbols are the bytes themselves."""

    def encode(self, data: bytes) -> np.ndarray:
        """The bytes of `data`, (n,) uint16."""
        return np.frombuffer(data, np.uint8).astype(np.uint16)

    def decode(self, symbols: Iterable[int]) -> bytes:
        """The bytes that `symbols` (0..255) are."""
        return bytes(int(symbol) for symbol in symbols)


Codec = Tokenizer | Bytes


def _unlearned() -> "Library":
    """A tokenizer of the library before it has learned any token."""
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Split(Regex(BORDERS), "isolated")
    library.decoder = decoders.Fuse()
    return library


def _rules(library: "Library") -> dict[str, Any]:
    """All that is not learned; with other rules bytes might not come back."""
    rules = json.loads(library.to_str())
    for learned in ("vocab", "merges"):
        rules["model"].pop(learned, None)
    return rules


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of at most PIECE_BYTES, cut behind newlines where there are any."""
    held = b""
    for chunk in chunks:
        held, start = held + chunk, 0
        while len(held) - start >= PIECE_BYTES:
            end = start + PIECE_BYTES
            stop = held.rfind(b"\n", start, end) + 1 or end
            yield held[start:stop]
            start = stop
        held = held[start:]
    if held:
        yield held
