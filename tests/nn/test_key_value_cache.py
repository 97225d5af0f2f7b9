"""KeyValueCache: what is appended is what is held, however it grows."""

import pytest
import torch

from pyseq.nn import KeyValueCache


def pieces(*lengths, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, n, 4, generator=draw).to(dtype) for n in lengths]


@pytest.mark.parametrize("capacity", [0, 3, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_holds_what_was_appended(capacity, dtype):
    cache = KeyValueCache(capacity)
    parts = pieces(2, 1, 0, 7, 1, 30, dtype=dtype)
    for i, x in enumerate(parts):
        key, value = cache.append(x, -x)
        assert torch.equal(key, torch.cat(parts[: i + 1], 2))
        assert torch.equal(value, -key)
        assert cache.length == key.shape[2]


def test_grows_by_doubling():
    """Buffers are moved a logarithmic number of times."""
    cache = KeyValueCache()
    [x] = pieces(1)
    places = {cache.append(x, x)[0].data_ptr() for _ in range(1000)}
    assert len(places) <= 11


def test_room_that_is_asked_for_is_kept():
    cache = KeyValueCache(50)
    [x] = pieces(1)
    assert len({cache.append(x, x)[0].data_ptr() for _ in range(50)}) == 1


def test_nothing_flows_back():
    cache = KeyValueCache()
    [x] = pieces(2)
    key, value = cache.append(x.requires_grad_(), x * 2)
    assert not key.requires_grad
    assert not value.requires_grad


def test_begun_in_inference_mode():
    cache = KeyValueCache(9)
    [x] = pieces(2)
    with torch.inference_mode():
        cache.append(x, x)
    key, _ = cache.append(x, x)
    assert torch.equal(key, torch.cat([x, x], 2))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (torch.zeros(3, 3, 1, 4), torch.zeros(3, 3, 1, 4), r"key \(3, 3, 1, 4\).*\(2, 3, 1, 4\)"),
        (torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 2, 4), r"value \(2, 3, 2, 4\).*\(2, 3, 1, 4\)"),
        (torch.zeros(2, 3, 1, 4).half(), torch.zeros(2, 3, 1, 4), "key .* in torch.float16"),
        (torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 1, 4, device="meta"), "value .* on meta"),
    ],
)
def test_errors(key, value, message):
    cache = KeyValueCache()
    [x] = pieces(5)
    cache.append(x, x)
    with pytest.raises(ValueError, match=f"^KeyValueCache: {message}"):
        cache.append(key, value)
    assert cache.length == 5


def test_capacity_is_not_negative():
    with pytest.raises(ValueError, match="capacity is -1; 0 or more fits"):
        KeyValueCache(-1)


def test_a_refused_first_append_leaves_the_cache_empty():
    cache = KeyValueCache()
    with pytest.raises(ValueError, match="equal ones fit"):
        cache.append(torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 2, 4))
    with pytest.raises(ValueError, match=r"key \(2, 3, 4\); \(B, G, T, D\) fits"):
        cache.append(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    key, _ = cache.append(torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4))
    assert key.shape == (1, 3, 1, 4)
