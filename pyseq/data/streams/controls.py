"""Negative controls: streams that nobody can tell from independent uniform draws, so far."""

import hmac
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import count as count_from
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET, Kind
from pyseq.data.streams.stream import BLOCK, Stream, surprise


@dataclass(frozen=True)
class HmacRolls(Stream):
    """Rolls 0..10000 as "provably fair" games make them: a negative control.

    Roll n is floor(10001 u / 2**32), with u the first 4 bytes, big-endian, of
    HMAC-SHA256(server_seed, "client_seed:n:0"). The key is the ASCII text of the server seed, here
    the hexadecimal SHA-256 of the decimal seed of the stream.

    The entropies are those of uniform 32-bit u: roll r has exactly
    ceil(2**32 (r + 1) / 10001) - ceil(2**32 r / 10001) values of u, 429453 or 429454. Whoever does
    not hold the server seed cannot tell the rolls from that (as far as is known of SHA-256).

    Args:
        client_seed (str): the part of the message that the player chooses.
    """

    name: ClassVar[str] = "hmac_rolls"
    kind: ClassVar[Kind] = "values"
    independent: ClassVar[bool] = True
    sides: ClassVar[int] = 10_001

    client_seed: str = "pyseq"

    @property
    def alphabet(self) -> int:
        return self.sides

    @cached_property
    def probabilities(self) -> np.ndarray:
        """P (10001,), float64, read-only: exact multiples of 2**-32."""
        edges = -((-np.arange(self.sides + 1) << 32) // self.sides)
        probabilities = np.diff(edges) / 2.0**32
        probabilities.flags.writeable = False
        return probabilities

    @property
    def entropy_rate(self) -> float:
        return math.fsum(surprise(self.probabilities))

    @property
    def min_entropy(self) -> float:
        return -math.log2(self.probabilities.max())

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        server_seed = sha256(str(seed).encode()).hexdigest()
        for start in count_from(0, BLOCK):
            yield hmac_roll(server_seed, self.client_seed, range(start, start + BLOCK))


def hmac_roll(server_seed: str, client_seed: str, nonces: range) -> np.ndarray:
    """Rolls 0..10000 of one server seed and client seed, cursor 0.

    Args:
        server_seed (str): the HMAC key, as its UTF-8 text (not decoded from hexadecimal).
        client_seed (str): first part of the message "client_seed:nonce:0".
        nonces (range): which rolls.

    Returns:
        ndarray (len(nonces),), uint16.
    """
    keyed = hmac.new(server_seed.encode(), digestmod="sha256")
    before = f"{client_seed}:".encode()
    heads = bytearray()
    for nonce in nonces:
        mac = keyed.copy()
        mac.update(b"%b%d:0" % (before, nonce))
        heads += mac.digest()[:4]
    fractions = np.frombuffer(heads, dtype=">u4").astype(np.uint64)
    return ((fractions * np.uint64(HmacRolls.sides)) >> np.uint64(32)).astype(np.uint16)


class _WholeSymbols(Stream):
    """All 65,536 symbols, each as likely as any other whatever came before: 16 bits/symbol."""

    kind: ClassVar[Kind] = "values"
    independent: ClassVar[bool] = True

    @property
    def alphabet(self) -> int:
        return MAX_ALPHABET

    @property
    def entropy_rate(self) -> float:
        return 16.0

    @property
    def min_entropy(self) -> float:
        return 16.0


@dataclass(frozen=True)
class AesCtr(_WholeSymbols):
    """The keystream of AES-256 in counter mode as little-endian u16: a negative control.

    The key is the SHA-256 of the decimal seed of the stream, the first counter block is zero. The
    entropies are those of uniform symbols: nobody without the key can tell the keystream from
    them, as far as is known of AES. (Blocks of 128 bits never repeat under one key, which shows
    after some 2**64 blocks only.)

    Source: NIST SP 800-38A, section 6.5; the cipher is that of the package `cryptography`.
    """

    name: ClassVar[str] = "aes_ctr"

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        key = sha256(str(seed).encode()).digest()
        bytes_each = 2 * BLOCK
        for start in count_from(0, bytes_each // 16):
            yield np.frombuffer(aes_ctr(key, start, bytes_each), dtype="<u2").astype(np.uint16)


def aes_ctr(key: bytes, counter: int, size: int) -> bytes:
    """The keystream of AES in counter mode.

    Args:
        key (bytes): 16, 24 or 32 bytes.
        counter (int): the first counter block as a big-endian number of 128 bits.
        size (int): bytes wanted.

    Returns:
        bytes (size,).
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    mode = modes.CTR(counter.to_bytes(16, "big"))
    return Cipher(algorithms.AES(key), mode).encryptor().update(bytes(size))


@dataclass(frozen=True)
class Pcg64(_WholeSymbols):
    """The 64-bit words of NumPy's PCG64 as little-endian u16: a negative control.

    The entropies are those of uniform symbols, which no statistical test that is known tells from
    it. It is no cipher, though: 512 bytes and at most 20,000 hours of computing give its whole
    state (Bouillaguet, Martinez, Sauvage 2020, Practical seed-recovery for the PCG pseudo-random
    number generator), and whoever has the state knows all that follows. `uniform` with 65,536
    symbols is the same stream.

    Source: O'Neill 2014, PCG: a family of simple fast space-efficient statistically good
    algorithms for random number generation (PCG XSL RR 128/64).
    """

    name: ClassVar[str] = "pcg64"

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        words = np.random.PCG64(seed)
        while True:
            raw = np.asarray(words.random_raw(BLOCK // 4), dtype="<u8")
            yield raw.view("<u2").astype(np.uint16)


@dataclass(frozen=True)
class Urandom(_WholeSymbols):
    """What os.urandom gives as little-endian u16: a negative control that cannot be repeated.

    It has no seed: the seed is accepted, as every stream has one, and changes nothing. The
    operating system mixes noise of the machine into a cryptographic generator; the entropies are
    those of uniform symbols, which nobody can tell from it, as far as is known.
    """

    name: ClassVar[str] = "urandom"
    reproducible: ClassVar[bool] = False

    def describe(self, seed: int) -> str:
        """One line that says where the stream came from.

        Args:
            seed (int): not used.

        Returns:
            str, "urandom (os.urandom, cannot be made again)".
        """
        return "urandom (os.urandom, cannot be made again)"

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        while True:
            yield np.frombuffer(os.urandom(2 * BLOCK), dtype="<u2").astype(np.uint16)
