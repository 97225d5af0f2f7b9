"""gather_windows: every backend copies the same symbols, and refuses what leaves the stream."""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data import U16Stream
from pyseq.ops import BackendUnavailable, backends, gather_windows
from tests.correctness import backends_of, nan_filled_memory, place, served

DTYPES = (torch.uint16, torch.int32, torch.int64, torch.float32)
BACKENDS = backends_of("gather_windows")
SOURCES = ("tensor", "mmap", "pread", "ram", "shards", "gpu")
GPU = place("triton")  # the CPU, where there is no GPU


def serves(source: str, backend: str) -> bool:
    """Triton gathers what is kept on a GPU, and native code what is not."""
    if backend == "native":
        return source != "gpu" or GPU.type == "cpu"
    return backend == "reference" or source in ("tensor", "gpu")


SERVED = [pair for pair in product(SOURCES, BACKENDS) if serves(*pair)]
on_every_backend = pytest.mark.parametrize(("source", "backend"), SERVED, indirect=["source"])


def random_stream(symbols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 65_536, (symbols,), generator=generator).to(torch.uint16)


def slices(stream: torch.Tensor, offsets: torch.Tensor, length: int) -> torch.Tensor:
    """The oracle: one Python slice per window."""
    rows = [stream.tolist()[o : o + length] for o in offsets.tolist()]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), length)


@pytest.fixture(params=SOURCES)
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
    device = GPU if io == "gpu" else None
    with U16Stream(str(tmp_path / "*.u16"), io=io, device=device) as stream:
        yield stream, symbols


@on_every_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 5000])
def test_equals_slices(source, backend, dtype, length):
    stream, symbols = source
    last = 5000 - length
    offsets = torch.tensor([0, last, last // 2, min(last, 699), min(last, 1), 0])
    windows = served(gather_windows, backend)(stream, offsets, length, dtype=dtype)
    assert windows.dtype == dtype
    assert torch.equal(windows.to(torch.int64), slices(symbols, offsets, length))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), symbols=st.integers(1, 300))
def test_backends_agree_everywhere(data, symbols):
    stream = random_stream(symbols)
    length = data.draw(st.integers(1, symbols))
    offsets = torch.tensor(
        data.draw(st.lists(st.integers(0, symbols - length), max_size=20)), dtype=torch.int64
    )
    expected = gather_windows(stream, offsets, length, backend="reference")
    for backend in BACKENDS[1:]:
        assert torch.equal(served(gather_windows, backend)(stream, offsets, length), expected)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("source", SOURCES[:5], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_threads_write_every_window(source, dtype):
    stream, symbols = source
    offsets = torch.randint(0, 5000 - 1024, (512,), generator=torch.Generator().manual_seed(0))
    windows = gather_windows(stream, offsets, 1024, dtype=dtype, backend="native")
    assert torch.equal(windows, symbols.unfold(0, 1024, 1)[offsets].to(dtype))


@on_every_backend
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_symbol_of_the_result_is_left_unwritten(source, backend, dtype):
    stream, symbols = source
    offsets = torch.tensor([0, 4998, 77])
    with nan_filled_memory():
        windows = served(gather_windows, backend)(stream, offsets, 2, dtype=dtype, threads=1)
    assert windows.double().tolist() == slices(symbols, offsets, 2).double().tolist()


@pytest.mark.parametrize("threads", [0, -1, -2])
def test_the_core_always_has_a_thread(threads):
    core = backends.core()
    symbols = random_stream(1000).numpy()
    out = np.full((3, 10), -1, np.int32)
    source = core.source_in_memory([symbols])
    core.gather_windows(source, np.array([0, 500, 990]), out, threads)
    assert out.tolist() == [symbols[a : a + 10].tolist() for a in (0, 500, 990)]


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 20), np.int64)[:, ::2],
        np.zeros((10, 3), np.int64).T,
        np.zeros((6, 10), np.int64)[::2],
        read_only(np.zeros((3, 10), np.int64)),
        np.zeros(30, np.int64),
    ],
    ids=["every second column", "transposed", "every second row", "read-only", "one axis"],
)
def test_the_core_writes_in_place_or_refuses(out):
    core = backends.core()
    source = core.source_in_memory([random_stream(1000).numpy()])
    with pytest.raises(TypeError, match="incompatible function arguments"):
        core.gather_windows(source, np.array([0, 500, 990]), out, 1)


@pytest.mark.parametrize(
    "array",
    [np.zeros(20, np.uint16)[::2], np.zeros(20, np.int64), np.zeros((4, 5), np.uint16)],
    ids=["every second", "int64", "two axes"],
)
def test_the_core_reads_in_place_or_refuses(array):
    fits = read_only(np.zeros(20, np.uint16))
    assert len(backends.core().source_in_memory([fits, fits])) == 40
    with pytest.raises(TypeError, match="incompatible function arguments"):
        backends.core().source_in_memory([fits, array])


def test_the_bus_error_handler_finds_its_thread_without_allocating():
    # A thread-local variable that is allocated at its first use is reached through this function.
    assert b"__tls_get_addr" not in Path(backends.core().__file__).read_bytes()


def test_empty_batch(source):
    stream, _ = source
    windows = gather_windows(stream, torch.empty(0, dtype=torch.int64), 7)
    assert windows.shape == (0, 7)


@on_every_backend
@pytest.mark.parametrize("offsets", [[], [0]])
def test_windows_longer_than_the_stream_are_refused(source, backend, offsets):
    offsets = torch.tensor(offsets, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"length is 5001; 1 to 5000 fits; stream \(5000,\)"):
        gather_windows(source[0], offsets, 5001, backend=backend)


def test_non_contiguous_stream_and_offsets():
    stream = random_stream(2000)[::2]
    offsets = torch.arange(0, 20)[::3]
    for backend in BACKENDS:
        windows = served(gather_windows, backend)(stream, offsets, 10)
        assert torch.equal(windows, slices(stream, offsets, 10))


@pytest.mark.parametrize("source", ["mmap", "ram"], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("moved", [0, 1, 2, 4, 8, 36])
def test_out_may_begin_anywhere(source, dtype, moved):
    """Large enough to be written past the caches, which takes aligned memory."""
    stream, symbols = source
    offsets = torch.arange(0, 4240, 8)
    memory = bytearray(530 * 701 * dtype.itemsize + 64)
    out = torch.frombuffer(memory, dtype=dtype, count=530 * 701, offset=moved).view(530, 701)
    gather_windows(stream, offsets, 701, dtype=dtype, out=out)
    assert torch.equal(out.to(torch.int64), slices(symbols, offsets, 701))


def test_out_is_written_and_returned(source):
    stream, symbols = source
    offsets = torch.tensor([3, 100])
    resident = getattr(stream, "device", None) or torch.device("cpu")
    out = torch.full((2, 5), -1, dtype=torch.int32, device=resident)
    windows = gather_windows(stream, offsets, 5, dtype=torch.int32, out=out)
    assert windows is out
    assert torch.equal(out.long().cpu(), slices(symbols, offsets, 5))


# Offsets on the CPU, which are checked wherever the stream is kept.
@pytest.mark.parametrize(
    ("source", "backend"), [x for x in SERVED if x != ("tensor", "triton")], indirect=["source"]
)
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
        ({"offsets": [0]}, TypeError, "offsets are a list; an int64 tensor fits"),
        ({"length": 0}, ValueError, r"length is 0; 1 to 9 fits; stream \(9,\)"),
        ({"length": 2.0}, TypeError, "length is a float; an int fits"),
        ({"threads": 0}, ValueError, "threads is 0; at least 1 fits"),
        ({"threads": -1}, ValueError, "threads is -1; at least 1 fits"),
        ({"threads": 1.0}, TypeError, "threads is a float; an int or None fits"),
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


@pytest.mark.parametrize("threads", [0, -2])
def test_a_stream_needs_a_thread(source, threads):
    with pytest.raises(ValueError, match=f"threads is {threads}; at least 1 fits"):
        gather_windows(source[0], torch.tensor([0]), 4, threads=threads)


def test_numpy_whole_numbers_are_whole_numbers():
    windows = gather_windows(random_stream(9), torch.tensor([0]), np.int64(4), threads=np.int32(1))
    assert windows.shape == (1, 4)


def test_a_named_backend_never_falls_back(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(BackendUnavailable, match="the tensors are on cpu, not on cuda"):
        gather_windows(random_stream(9), torch.tensor([0]), 4, backend="triton")


@pytest.mark.parametrize("source", ["mmap", "pread", "ram"], indirect=True)
def test_triton_says_which_streams_it_serves(source):
    with pytest.raises(BackendUnavailable, match="the stream is not on a GPU; io='gpu' puts it"):
        gather_windows(source[0], torch.tensor([0]), 4, backend="triton")


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    stream, offsets = random_stream(100), torch.tensor([0, 90, 5])
    there = stream.to(place(backend)), offsets.to(place(backend))
    arguments = (*there, 10, torch.int32, backend)
    torch.library.opcheck(torch.ops.pyseq.gather_windows.default, arguments)


def test_compiles_into_one_graph():
    stream, offsets = random_stream(1000), torch.tensor([1, 900, 5])
    compiled = torch.compile(lambda s, o: gather_windows(s, o, 17) + 1, fullgraph=True)
    assert torch.equal(compiled(stream, offsets), slices(stream, offsets, 17) + 1)


def test_offsets_and_stream_lie_on_one_device(source):
    elsewhere = torch.tensor([0], device="meta")
    with pytest.raises(ValueError, match="offsets on meta, stream on "):
        gather_windows(source[0], elsewhere, 4)


def test_out_lies_where_the_stream_is_kept(source):
    out = torch.empty(1, 4, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match=r"out on meta; .*, as stream, fits"):
        gather_windows(source[0], torch.tensor([0]), 4, out=out)


@pytest.fixture
def on_gpu(tmp_path):
    """100,000 symbols on the GPU, and the same on the CPU."""
    symbols = random_stream(100_000)
    symbols.numpy().tofile(tmp_path / "s.u16")
    with U16Stream(tmp_path / "s.u16", io="gpu") as stream:
        yield stream, symbols


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["auto", "triton", "reference"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stream_on_a_gpu_takes_offsets_from_both_sides(on_gpu, backend, dtype):
    stream, symbols = on_gpu
    offsets = torch.randint(0, 100_000 - 257, (64,))
    expected = symbols.unfold(0, 257, 1)[offsets].to(dtype)
    for start in (offsets, offsets.pin_memory(), offsets.cuda()):
        windows = gather_windows(stream, start, 257, dtype=dtype, backend=backend)
        assert windows.device == stream.device
        assert torch.equal(windows.cpu(), expected)


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu(on_gpu):
    stream, symbols = on_gpu
    offsets = torch.randint(0, 100_000 - 257, (64,))
    there = offsets.cuda()
    gather_windows(stream, offsets, 257)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        windows = [gather_windows(stream, start, 257) for start in (offsets, there)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for found in windows:
        assert torch.equal(found.cpu(), symbols.unfold(0, 257, 1)[offsets].long())


@pytest.mark.gpu
def test_native_code_reads_nothing_on_a_gpu(on_gpu):
    with pytest.raises(BackendUnavailable, match="the stream is on cuda:0, not on cpu"):
        gather_windows(on_gpu[0], torch.tensor([0]), 4, backend="native")
