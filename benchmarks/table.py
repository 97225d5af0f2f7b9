"""A measurement as the cells of a table."""

from benchmarks import machine
from benchmarks.harness import Measurement, Timing

HEADER = ("contestant", "p50 [p20, p80]", "rate", "of ceiling", "vs best peer", "peak")
ROLES = ("contestant", "peer", "ceiling")


def title(measurement: Measurement) -> str:
    """What was measured and on what, in one line."""
    case, ceiling, peer = measurement.case, measurement.ceiling, measurement.best_peer
    parts = [
        f"{case.op} {case.direction}, {case.shape}, {case.dtype}",
        f"{machine.device_name(case.device)}, {measurement.threads} used",
    ]
    if ceiling is not None:
        value = quantity(measurement.ceiling_value(ceiling), ceiling.unit)
        parts.append(f"ceiling {ceiling.name} {value}")
    if peer is not None:
        parts.append(f"best peer {peer.name}")
    return "; ".join(parts)


def cells(measurement: Measurement) -> list[tuple[str, ...]]:
    """Rows under `HEADER`: ours, then peers, then ceilings, each fastest first."""
    timings = sorted(measurement.timings, key=lambda t: (ROLES.index(t.role), t.quantiles[1]))
    return [_cells(measurement, timing) for timing in timings]


def text(measurement: Measurement) -> str:
    """Title and aligned columns."""
    rows = [HEADER, *cells(measurement)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"left out: {name}: {why}" for name, why in measurement.left_out.items()]
    return "\n".join([title(measurement), *lines, ""])


def duration(p20: float, p50: float, p80: float) -> str:
    """Three times in seconds as "p50 [p20, p80] unit"."""
    unit, scale = next(((u, s) for u, s in (("s", 1), ("ms", 1e3)) if p50 * s >= 1), ("us", 1e6))
    middle, low, high = (digits(value * scale) for value in (p50, p20, p80))
    return f"{middle} [{low}, {high}] {unit}"


def quantity(value: float, unit: str) -> str:
    """A rate with three digits; large counts per second in millions."""
    if unit == "tokens/s" and value >= 1e5:
        return f"{digits(value / 1e6)} M{unit}"
    return f"{digits(value)} {unit}"


def ratio(p20: float, p50: float, p80: float) -> str:
    """A ratio with its spread."""
    return f"{digits(p50)}x [{digits(p20)}, {digits(p80)}]"


def percent(share: float) -> str:
    """A share with three digits."""
    return f"{digits(100 * share)} %"


def memory(peak_bytes: int | None) -> str:
    """Bytes in KiB or MiB; a dash where they were not measured."""
    if peak_bytes is None:
        return "-"
    return f"{peak_bytes / 2**20:.1f} MiB" if peak_bytes >= 2**20 else f"{peak_bytes >> 10} KiB"


def digits(value: float) -> str:
    """Three significant digits without an exponent, all digits from 1000 on."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def _cells(measurement: Measurement, timing: Timing) -> tuple[str, ...]:
    is_ceiling = timing.role == "ceiling"
    unit = measurement.case.ceilings[0].unit if is_ceiling else measurement.case.unit
    share, against = measurement.ceiling_share(timing), measurement.ratio(timing)
    return (
        f"{timing.name} ({timing.role})" if timing.role != "contestant" else timing.name,
        duration(*timing.quantiles),
        quantity(measurement.unit_value(timing), unit),
        "-" if share is None else percent(share),
        "-" if against is None else ratio(*against),
        memory(timing.peak_bytes),
    )
