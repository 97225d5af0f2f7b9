"""CyclicCosine against its closed form, its bound, and its state."""

import itertools
import math

import pytest
import torch

from pyseq.training.cyclic_cosine import CyclicCosine, cycle_ends

SHAPE = {"cycle_epochs": 7, "warmup_epochs": 5, "min_factor": 0.01, "decay": 0.8}


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in rates])


def rates(schedule: CyclicCosine, steps: int) -> list[list[float]]:
    """Rates of all groups before each of so many steps."""
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return found


def expected(epoch: int, top: float, low: float) -> float:
    """Written down from the definition, cycle by cycle."""
    if epoch < 5:
        return low + (top - low) * epoch / 5
    epoch, peak = epoch - 5, top
    while epoch >= 7:
        epoch, peak = epoch - 7, peak * 0.8
    peak = max(peak, low)
    return low + (peak - low) * (1 + math.cos(math.pi * epoch / 7)) / 2


def test_two_hundred_epochs_follow_the_closed_form_in_every_group():
    found = rates(CyclicCosine(optimizer(0.1, 0.003), **SHAPE), 200)
    wanted = [[expected(e, top, top / 100) for top in (0.1, 0.003)] for e in range(200)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-6, atol=0)


def test_it_begins_at_min_and_peaks_at_max_then_at_four_fifths():
    first = [rate for (rate,) in rates(CyclicCosine(optimizer(1.0), **SHAPE), 20)]
    assert first[0] == pytest.approx(0.01)
    assert max(first) == first[5] == pytest.approx(1.0)
    assert first[12] == pytest.approx(0.8)
    assert first[11] < first[10] < first[6]


def test_no_cycle_rises_however_many_there_were():
    found = [rate for (rate,) in rates(CyclicCosine(optimizer(1.0), **SHAPE), 5 + 30 * 7)]
    assert min(found) >= 0.01
    cycles = [found[5 + 7 * k : 12 + 7 * k] for k in range(30)]
    assert all(a >= b for cycle in cycles for a, b in itertools.pairwise(cycle))
    assert cycles[20][0] > 0.01  # 0.8^20 = 0.0115
    assert set(cycles[21]) == {0.01}  # 0.8^21 = 0.0092 would be below min, and the cosine inverted


def test_steps_of_an_epoch_pass_through_the_same_epochs():
    by_step = CyclicCosine(optimizer(1.0), steps_per_epoch=4, **SHAPE)
    by_epoch = CyclicCosine(optimizer(1.0), **SHAPE)
    torch.testing.assert_close(
        torch.tensor(rates(by_step, 160)[::4]), torch.tensor(rates(by_epoch, 40))
    )


@pytest.mark.parametrize("stop", [0, 3, 5, 17, 180])
def test_a_restored_schedule_gives_the_same_rates(stop):
    whole = rates(CyclicCosine(optimizer(0.1, 0.02), **SHAPE), 200)
    first = CyclicCosine(optimizer(0.1, 0.02), **SHAPE)
    rates(first, stop)
    state = (first.state_dict(), first.optimizer.state_dict())
    second = CyclicCosine(optimizer(0.1, 0.02), cycle_epochs=3)
    second.load_state_dict(state[0])
    second.optimizer.load_state_dict(state[1])
    assert rates(second, 200 - stop) == whole[stop:]


def test_it_leads_on_from_another_schedule():
    shared = optimizer(1.0)
    halved = torch.optim.lr_scheduler.LambdaLR(shared, lambda _: 0.5)
    schedule = CyclicCosine(shared, **SHAPE)
    both = torch.optim.lr_scheduler.SequentialLR(shared, [halved, schedule], [3])
    found = []
    for _ in range(9):
        found.append(shared.param_groups[0]["lr"])
        shared.step()
        both.step()
    assert found[:3] == [0.5, 0.5, 0.5]
    assert found[3:] == pytest.approx([expected(e, 1.0, 0.01) for e in range(6)])


def test_the_ends_of_cycles_are_where_the_rate_is_lowest():
    ends = cycle_ends(30, cycle_epochs=7, warmup_epochs=5)
    assert ends == [12, 19, 26]
    found = [rate for (rate,) in rates(CyclicCosine(optimizer(1.0), **SHAPE), 30)]
    assert all(found[end - 1] < found[end] for end in ends)
    assert cycle_ends(4, cycle_epochs=7, warmup_epochs=5) == []


@pytest.mark.parametrize(
    "wrong",
    [{"cycle_epochs": 0}, {"warmup_epochs": -1}, {"steps_per_epoch": 0}, {"min_factor": 1.5},
     {"decay": 0.0}],
)  # fmt: skip
def test_senseless_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CyclicCosine(optimizer(1.0), **({"cycle_epochs": 3} | wrong))
