"""Streams of which NIST's program was asked, and its answers."""

import lzma
import re
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"


def file_of_nist(name: str) -> bytes:
    """The bytes of one of NIST's files."""
    if (DATA / f"{name}.bin.xz").exists():
        return lzma.decompress((DATA / f"{name}.bin.xz").read_bytes())
    if (DATA / f"{name}.packed.bin").exists():
        return np.unpackbits(np.fromfile(DATA / f"{name}.packed.bin", np.uint8)).tobytes()
    return (DATA / f"{name}.bin").read_bytes()


def figures(text: str, label: str) -> dict[tuple[str, str], float]:
    """What NIST's program printed of an estimate, by the estimate's name and the figure's."""
    form = rf"^{label} (.+?)(?: Prediction)? Estimate: (.+?) = (\S+)$"
    return {(name, what): float(value) for name, what, value in re.findall(form, text, re.M)}


def nibbles(name: str) -> np.ndarray:
    """A file of NIST in symbols of 4 bits, the high ones first."""
    values = np.frombuffer(file_of_nist(name), np.uint8)
    return np.stack([values >> 4, values & 15], axis=1).reshape(-1)


def de_bruijn(alphabet: int, length: int) -> np.ndarray:
    """Every word of so many symbols once, by the algorithm of Fredricksen and Maiorana."""
    sequence: list[int] = []
    word = [-1]
    while word:
        word[-1] += 1
        if length % len(word) == 0:
            sequence += word
        word = [word[i % len(word)] for i in range(length)]
        while word and word[-1] == alphabet - 1:
            word.pop()
    return np.array(sequence, np.uint8)


def lcg_bytes(count: int) -> np.ndarray:
    """High bytes of a linear congruential generator modulo 2^16, whose period is 65,536."""
    state, values = 1, np.empty(count, np.uint8)
    for i in range(count):
        state = (state * 25173 + 13849) % 65536
        values[i] = state >> 8
    return values


def made_streams() -> dict[str, np.ndarray]:
    """Small and odd streams of uint8; their symbols have gaps, as NIST's program allows."""
    # numpy promises that this generator's draws never change.
    rng = np.random.RandomState(20240712)
    bits = (rng.random_sample(60_000) < 0.9).astype(np.uint8)
    periodic = np.tile(np.arange(7, dtype=np.uint8), 5000)
    noisy = np.where(
        rng.random_sample(periodic.size) < 0.3, rng.randint(0, 7, periodic.size), periodic
    )
    walk = np.cumsum(rng.randint(0, 5, 300_000)) % 256
    steps = np.repeat(rng.randint(0, 256, 600), rng.randint(1, 400, 600))
    return {
        "truerand_nibbles": nibbles("truerand_8bit"),
        "biased_nibbles": nibbles("biased-random-bytes"),
        "hundred_bytes": np.frombuffer(file_of_nist("truerand_8bit"), np.uint8)[:100],
        "nineteen_bytes": np.frombuffer(file_of_nist("rand8_short"), np.uint8)[:19],
        "shortest_for_all": np.frombuffer(file_of_nist("truerand_8bit"), np.uint8)[:4096],
        "all_different": np.arange(256, dtype=np.uint8),
        "biased_bits": bits,
        "two_far_symbols": np.where(bits == 1, 3, 200).astype(np.uint8)[:5000],
        "alternating": np.tile(np.array([0, 255], np.uint8), 4000),
        "one_exception": np.r_[np.zeros(5000, np.uint8), 9, np.zeros(5000, np.uint8)],
        "three_far_symbols": rng.choice(np.array([1, 5, 250], np.uint8), 20_000, p=[0.7, 0.2, 0.1]),
        "periodic": periodic,
        "noisy_periodic": noisy.astype(np.uint8),
        "walk": walk.astype(np.uint8),
        "steps": steps.astype(np.uint8),
        "lcg_bytes": lcg_bytes(200_000),
        # No three symbols come twice: dictionaries of all orders fill at the same moment.
        "de_bruijn": de_bruijn(70, 3),
    }
