"""The baseline: its sizes, its loss, and that the future cannot matter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyseq.errors import UserError
from pyseq.models import Baseline, BaselineConfig


def small(kind="tokens", **sizes) -> Baseline:
    torch.manual_seed(0)
    defaults = {"d_model": 32, "nlayers": 2, "nhead": 4, "nhead_kv": 2, "dim_ff": 48}
    return Baseline(BaselineConfig(classes=50, kind=kind, **(defaults | sizes))).eval()


@pytest.mark.parametrize("kind", ["tokens", "values"])
@pytest.mark.parametrize("nhead_kv", [1, 2, 4])
def test_future_symbols_cannot_matter(kind, nhead_kv):
    """Change x[t + 1]: the outputs up to t stay bit for bit the same."""
    model = small(kind, nhead_kv=nhead_kv)
    symbols = torch.randint(0, 50, (2, 40))
    with torch.inference_mode():
        before = model(symbols)
        for t in (0, 1, 17, 38):
            changed = symbols.clone()
            changed[:, t + 1] = (changed[:, t + 1] + 7) % 50
            after = model(changed)
            assert torch.equal(after[:, : t + 1], before[:, : t + 1])
            assert not torch.equal(after[:, t + 1], before[:, t + 1])


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
def test_future_symbols_cannot_matter_across_blocks_of_rows(amp):
    """The same where attention works on 128 query rows at a time, at the edges of the blocks."""
    model = small()
    symbols = torch.randint(0, 50, (2, 300))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
        before = model(symbols)
        assert before.dtype == (torch.bfloat16 if amp else torch.float32)
        for t in (126, 127, 128, 129, 255, 256, 257):
            changed = symbols.clone()
            changed[:, t + 1] = (changed[:, t + 1] + 7) % 50
            after = model(changed)
            assert torch.equal(after[:, : t + 1], before[:, : t + 1]), t
            assert not torch.equal(after[:, t + 1], before[:, t + 1]), t


def test_a_shorter_window_gives_the_same_outputs():
    model = small()
    symbols = torch.randint(0, 50, (2, 40))
    with torch.inference_mode():
        assert torch.allclose(model(symbols)[:, :13], model(symbols[:, :13]), atol=1e-5)


@pytest.mark.parametrize("kind", ["tokens", "values"])
def test_loss_is_the_cross_entropy_of_the_next_symbol(kind):
    model = small(kind)
    window = torch.randint(0, 50, (3, 21))
    expected = nn.functional.cross_entropy(
        model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten()
    )
    assert torch.allclose(model.loss(window), expected, atol=1e-6)
    parameters = list(model.parameters())
    found = torch.autograd.grad(model.loss(window), parameters)
    for got, want in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        assert torch.allclose(got, want, atol=1e-7)


def test_an_untrained_model_is_nearly_uniform():
    loss = small().loss(torch.randint(0, 50, (4, 101))).detach()
    assert abs(float(loss) - torch.tensor(50.0).log()) < 0.1


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [({}, 3.7), ({"d_model": 512, "nlayers": 8, "nhead": 16, "nhead_kv": 16, "dim_ff": 2048}, 26)],
)
def test_the_named_sizes_have_the_named_parameters(sizes, millions):
    with torch.device("meta"):
        model = Baseline(BaselineConfig(classes=1024, **sizes))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("kind", ["tokens", "values"])
@pytest.mark.parametrize("nhead_kv", [1, 4])
@pytest.mark.parametrize("seq_len", [64, 63])
def test_flops_count_what_a_step_multiplies(kind, nhead_kv, seq_len):
    """The matrices against PyTorch's own counter, attention against a formula."""
    width, heads, gated, classes, layers = 32, 4, 48 * 2 // 3, 50, 2
    model = small(kind, nhead_kv=nhead_kv)
    with FlopCounterMode(display=False) as counter:
        # Not the loss: its op multiplies with the head where PyTorch's counter does not see it.
        model(torch.randint(0, classes, (1, seq_len))).sum().backward()
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    # Multiply-adds of a symbol: queries, keys and values; out; gate and value; out.
    projections = width * (heads + 2 * nhead_kv) * (width // heads) + width * width
    feed_forward = width * 2 * gated + gated * width
    matrices = layers * (projections + feed_forward) + width * classes
    values = width if kind == "values" else 0
    # Nothing needs the gradient of the numbers that the value projection multiplies: two passes,
    # not three, which the model's count leaves aside.
    assert counted == 2 * seq_len * (3 * matrices + 2 * values)
    # Every layer multiplies each query with half of the keys, and each weight with a value.
    attention = layers * 2 * width * seq_len / 2
    assert model.flops_per_symbol(seq_len) == 2 * 3 * (matrices + values + attention)


def test_it_learns_a_repeated_pattern():
    torch.manual_seed(1)
    model = small().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pattern = torch.randperm(50)[:7].repeat(10)
    for _ in range(60):
        start = int(torch.randint(0, 7, ()))
        loss = model.loss(pattern[start : start + 50][None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"nhead": 5}, "--nhead 5 must divide --d_model 32"),
        ({"nhead": 32, "nhead_kv": 32}, "need an even width"),
        ({"nhead_kv": 3}, "--nhead_kv 3 must divide --nhead 4"),
        ({"nlayers": 0}, "at least 1"),
        ({"dropout": 1.0}, "--dropout 1.0"),
    ],
)
def test_sizes_that_do_not_fit(sizes, words):
    with pytest.raises(UserError, match=words):
        small(**sizes)


@pytest.mark.parametrize("kind", ["tokens", "values"])
def test_pieces_with_a_cache_give_what_the_whole_gives(kind):
    torch.manual_seed(0)
    model = Baseline(BaselineConfig(50, kind, d_model=32, nlayers=2, nhead=4, nhead_kv=2)).eval()
    x = torch.randint(0, 50, (2, 40))
    with torch.no_grad():
        whole = model(x)
        for sizes in ([1] * 40, [7, 1, 32], [40]):
            cache = model.new_cache()
            pieces = [model(piece, cache=cache) for piece in x.split(sizes, 1)]
            assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


def test_what_is_seen_is_read_and_what_is_due_stays():
    torch.manual_seed(0)
    config = BaselineConfig(50, d_model=32, nlayers=1, nhead=4, nhead_kv=2, mask_symbol=True)
    model, window = Baseline(config).eval(), torch.randint(0, 50, (2, 20))
    seen = window[:, :-1].clone()
    assert torch.equal(model.objective(window, seen)[0], model.loss(window))
    seen[:, 3] = 50  # masked
    with torch.no_grad():
        logp = torch.log_softmax(model(seen), -1)
        expected = -logp.gather(-1, window[:, 1:, None]).mean()
        assert torch.allclose(model.objective(window, seen)[1], expected)
