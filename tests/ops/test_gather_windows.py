"""gather_windows: every backend copies the same symbols, and refuses what leaves the stream."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data import U16Stream
from pyseq.ops import BackendUnavailable, gather_windows

DTYPES = (torch.uint16, torch.int32, torch.int64, torch.float32)


def random_stream(symbols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 65_536, (symbols,), generator=generator).to(torch.uint16)


def slices(stream: torch.Tensor, offsets: torch.Tensor, length: int) -> torch.Tensor:
    """The oracle: one Python slice per window."""
    rows = [stream.tolist()[o : o + length] for o in offsets.tolist()]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), length)


@pytest.fixture(params=["tensor", "mmap", "pread", "ram", "shards"])
def source(request, tmp_path):
    """The same 5,000 symbols as a tensor and as files in every io mode."""
    symbols = random_stream(5000)
    if request.param == "tensor":
        yield symbols, symbols
        return
    cuts = [0, 1, 700, 5000] if request.param == "shards" else [0, 5000]
    for i, (a, b) in enumerate(pairwise(cuts)):
        symbols[a:b].numpy().astype("<u2").tofile(tmp_path / f"{i}.u16")
    io = "mmap" if request.param == "shards" else request.param
    with U16Stream(str(tmp_path / "*.u16"), io=io) as stream:
        yield stream, symbols


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 5000])
def test_equals_slices(source, backend, dtype, length):
    stream, symbols = source
    last = 5000 - length
    offsets = torch.tensor([0, last, last // 2, min(last, 699), min(last, 1), 0])
    windows = gather_windows(stream, offsets, length, dtype=dtype, backend=backend)
    assert windows.dtype == dtype
    assert torch.equal(windows.to(torch.int64), slices(symbols, offsets, length))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), symbols=st.integers(1, 300))
def test_native_equals_reference_everywhere(data, symbols):
    stream = random_stream(symbols)
    length = data.draw(st.integers(1, symbols))
    offsets = torch.tensor(
        data.draw(st.lists(st.integers(0, symbols - length), max_size=20)), dtype=torch.int64
    )
    expected = gather_windows(stream, offsets, length, backend="reference")
    assert torch.equal(gather_windows(stream, offsets, length, backend="native"), expected)


def test_many_threads_write_every_window():
    stream = random_stream(1 << 16)
    offsets = torch.randint(0, (1 << 16) - 1024, (512,))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        windows = gather_windows(stream, offsets, 1024, backend="native")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(windows, stream.unfold(0, 1024, 1)[offsets].long())


def test_empty_batch(source):
    stream, _ = source
    windows = gather_windows(stream, torch.empty(0, dtype=torch.int64), 7)
    assert windows.shape == (0, 7)


def test_non_contiguous_stream_and_offsets():
    stream = random_stream(2000)[::2]
    offsets = torch.arange(0, 20)[::3]
    for backend in ("reference", "native"):
        windows = gather_windows(stream, offsets, 10, backend=backend)
        assert torch.equal(windows, slices(stream, offsets, 10))


def test_out_is_written_and_returned(source):
    stream, symbols = source
    offsets = torch.tensor([3, 100])
    out = torch.full((2, 5), -1, dtype=torch.int32)
    windows = gather_windows(stream, offsets, 5, dtype=torch.int32, out=out)
    assert windows is out
    assert torch.equal(out.long(), slices(symbols, offsets, 5))


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("offset", [-1, 4998, 2**40, -(2**40)])
def test_windows_outside_are_refused(source, backend, offset):
    with pytest.raises(IndexError, match="offsets from 0 to 4997 fit"):
        gather_windows(source[0], torch.tensor([0, offset]), 3, backend=backend)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stream": torch.zeros(9)}, TypeError, "stream is torch.float32; uint16 fits"),
        ({"stream": random_stream(9).reshape(3, 3)}, ValueError, r"shape \(3, 3\); \(S,\) fits"),
        ({"stream": [1, 2]}, TypeError, "stream is a list"),
        ({"offsets": torch.tensor([0.0])}, TypeError, "offsets are torch.float32; int64 fits"),
        ({"offsets": torch.tensor([[0]])}, ValueError, r"offsets have shape \(1, 1\)"),
        ({"length": 0}, ValueError, "length is 0; at least 1 fits"),
        ({"dtype": torch.int16}, TypeError, "dtype is torch.int16"),
        ({"out": torch.empty(1, 4)}, TypeError, "out is torch.float32"),
        ({"out": torch.empty(1, 5, dtype=torch.int64)}, ValueError, r"contiguous \(1, 4\) fits"),
        ({"backend": "cuda"}, ValueError, "backend is 'cuda'; known: auto, reference"),
    ],
)
def test_wrong_arguments_are_told(change, error, words):
    arguments = {"stream": random_stream(9), "offsets": torch.tensor([0]), "length": 4} | change
    with pytest.raises(error, match=words):
        gather_windows(**arguments)


def test_a_named_backend_never_falls_back():
    with pytest.raises(BackendUnavailable, match="the stream is on cpu, not on cuda"):
        gather_windows(random_stream(9), torch.tensor([0]), 4, backend="triton")


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_opcheck(backend):
    arguments = (random_stream(100), torch.tensor([0, 90, 5]), 10, torch.int32, backend)
    torch.library.opcheck(torch.ops.pyseq.gather_windows.default, arguments)


def test_compiles_into_one_graph():
    stream, offsets = random_stream(1000), torch.tensor([1, 900, 5])
    compiled = torch.compile(lambda s, o: gather_windows(s, o, 17) + 1, fullgraph=True)
    assert torch.equal(compiled(stream, offsets), slices(stream, offsets, 17) + 1)
