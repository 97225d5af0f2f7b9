import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from pyseq.data.streams import (
    BLOCK,
    NEGATIVE_CONTROLS,
    AesCtr,
    HmacRolls,
    Pcg64,
    Uniform,
    Urandom,
    aes_ctr,
    hmac_roll,
)
from tests.data.stream_samples import sample


@pytest.mark.parametrize("name", ["aes_ctr", "pcg64", "urandom"])
def test_whole_symbols_look_uniform(name):
    stream = NEGATIVE_CONTROLS[name]
    assert stream.entropy_rate == stream.min_entropy == stream.average_min_entropy == 16.0
    counts = np.bincount(sample(stream, 1_000_000), minlength=65_536)
    assert 1e-9 < stats.chisquare(counts).pvalue < 1 - 1e-9  # urandom draws anew every time


# hmac_rolls


def hmac_by_hand(key, message):
    """RFC 2104 with SHA-256, for keys of at most one block."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner)


def test_rolls_against_a_plain_computation():
    server_seed = hashlib.sha256(b"42").hexdigest()
    rolls = []
    for nonce in range(3000):
        digest = hmac_by_hand(server_seed.encode(), f"pyseq:{nonce}:0".encode()).digest()
        rolls.append(math.floor(int.from_bytes(digest[:4], "big") / 2**32 * 10_001))
    assert sample(HmacRolls(), 3000, seed=42).tolist() == rolls


def test_rolls_against_openssl():
    # key: printf 0 | openssl dgst -sha256
    # mac: printf pyseq:1:0 | openssl dgst -sha256 -mac HMAC -macopt key:5feceb66... (all of it)
    key = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
    mac = "8584329ba395215ee65f7e5c4a80495800f82651314c62d65e0469b5cfc61625"
    assert hmac_by_hand(key.encode(), b"pyseq:1:0").hexdigest() == mac
    assert 0x8584329B * 10_001 // 2**32 == 5216
    assert hmac_roll(key, "pyseq", range(1, 2)).tolist() == [5216]
    assert sample(HmacRolls(), 2, seed=0)[1] == 5216


def test_client_seed_changes_the_rolls():
    assert not np.array_equal(sample(HmacRolls("a"), 100), sample(HmacRolls("b"), 100))


def test_roll_probabilities_are_exact():
    stream = HmacRolls()
    counts = stream.probabilities * 2**32
    assert counts.sum() == 2**32
    assert set(counts.tolist()) == {429_453.0, 429_454.0}
    edges = np.concatenate([[0], np.cumsum(counts)]).astype(int).tolist()
    for roll in (0, 1, 777, 5000, 9999, 10_000):
        assert edges[roll] * 10_001 // 2**32 == roll
        assert (edges[roll + 1] - 1) * 10_001 // 2**32 == roll
    assert stream.entropy_rate == pytest.approx(stats.entropy(stream.probabilities, base=2))
    assert 0 < math.log2(10_001) - stream.entropy_rate < 1e-9
    assert stream.min_entropy == pytest.approx(32 - math.log2(429_454), abs=1e-12)


def test_rolls_look_uniform():
    counts = np.bincount(sample(HmacRolls(), 300_000), minlength=10_001)
    expected = 300_000 * HmacRolls().probabilities
    assert 1e-6 < stats.chisquare(counts, expected).pvalue < 1 - 1e-6


# aes_ctr


def test_keystream_of_the_standard():
    # NIST SP 800-38A, F.5.5, CTR-AES256: plaintext xor ciphertext of all four blocks
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    expected = bytes(a ^ b for a, b in zip(plain, cipher, strict=True))
    assert aes_ctr(key, counter, 64) == expected


def test_aes_stream_is_one_keystream():
    key = hashlib.sha256(b"42").digest()
    count = 2 * BLOCK + 100
    keystream = np.frombuffer(aes_ctr(key, 0, 2 * count), "<u2")
    np.testing.assert_array_equal(sample(AesCtr(), count, seed=42), keystream)


# pcg64 and urandom


def test_words_of_pcg64_are_cut_from_the_low_end():
    words = np.random.PCG64(5).random_raw(10_000)
    expected = [int(word) >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    assert sample(Pcg64(), 40_000, seed=5).tolist() == expected


def test_pcg64_is_what_uniform_draws_from():
    np.testing.assert_array_equal(sample(Pcg64(), 40_000, 3), sample(Uniform(), 40_000, 3))


def test_urandom_cannot_be_made_again():
    assert not Urandom.reproducible
    assert not np.array_equal(sample(Urandom(), 1000), sample(Urandom(), 1000))
    assert Urandom().describe(0) == "urandom (os.urandom, cannot be made again)"
    pieces = list(Urandom().chunks(BLOCK + 10, 0, 5000))
    assert [piece.size for piece in pieces] == [5000, 5000, 5000, BLOCK + 10 - 15_000]
