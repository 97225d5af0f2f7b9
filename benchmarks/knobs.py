"""What there is to tune: the functions that choose tiles of Triton kernels, and other choices."""

import importlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from benchmarks.attention import Shape
from benchmarks.bench_cosine_decode import Shape as CacheShape
from benchmarks.harness import Case, Contestant

ATTENTION = {"block_t": (64, 128, 256), "block_s": (32, 64, 128), "warps": (4, 8)}
GRADIENTS = {"block_t": (32, 64, 128), "block_s": (32, 64, 128), "warps": (4, 8)}
STAGES = {"stages": (2, 3, 4)}
FEWER_STAGES = {"stages": (1, 2, 3)}

Fields = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A function that chooses tiles, and what it may choose instead.

    Args:
        op, direction (str): of the cases that show what it is worth.
        where (str): "module.function" of the op's kernels, as the launch looks it up.
        choices (dict): values of the fields of the tiles; every combination is tried.
        sizes, small (Sequence): of the benchmark's cases: those that count, and those to try on;
            if fewer, the last stands for the rest.
        part (str): which of several tiles in what the function returns.
    """

    op: str
    direction: str
    where: str
    choices: dict[str, tuple[int, ...]]
    sizes: Sequence[Any]
    small: Sequence[Any]
    part: str = ""

    def candidates(self, quick: bool) -> list[Fields]:
        """All combinations; two of them if `quick`."""
        values = itertools.product(*self.choices.values())
        found = [dict(zip(self.choices, value, strict=True)) for value in values]
        return [found[0], found[-1]] if quick else found

    @contextmanager
    def turned(self, fields: Fields) -> Iterator[None]:
        """Let the function return tiles with these fields."""
        module, _, name = f"pyseq.kernels.{self.op}.{self.where}".rpartition(".")
        chosen = getattr(importlib.import_module(module), name)

        def instead(*arguments: Any) -> Any:
            tiles = chosen(*arguments)
            if not self.part:
                return tiles._replace(**fields)
            return tiles._replace(**{self.part: getattr(tiles, self.part)._replace(**fields)})

        with mock.patch(f"{module}.{name}", instead):
            yield

    def cases(self, device: str, quick: bool, small: bool) -> list[Case]:
        """A case, without ceilings, for each of our ways to use the kernel, its one contestant."""
        bench = importlib.import_module(f"benchmarks.bench_{self.op}")
        other = {} if quick else {"sizes": self.small if small else self.sizes}
        return [
            replace(case, contestants=[way], ceilings=())
            for case in bench.cases(quick=quick, device=device, **other)
            for way in self._ways(case)
            # What the interpreter makes of bfloat16 is wrong by design.
            if case.direction == self.direction and (device == "cuda" or case.dtype == "float32")
        ]

    def _ways(self, case: Case) -> list[Contestant]:
        ways = [c for c in case.contestants if not c.peer and c.name.startswith("triton")]
        ways = [way for way in ways if way.name != "triton online"]
        # The backward is the same, however the forward prepares its rows.
        return ways if self.direction == "forward" else ways[:1]


def _attention(B: int, T: int, *widths: int) -> list[Shape]:
    return [Shape(B, 32, 8, T, D, True) for D in widths]


LONG, SHORT = _attention(4, 8192, 128, 64), _attention(1, 768, 128, 64)


def _of_gradients(part: str) -> Knob:
    return Knob(
        op="cosine_attention",
        direction="forward+backward",
        where="backward.backward_tiles",
        part=part,
        choices=GRADIENTS | FEWER_STAGES,
        sizes=LONG,
        small=SHORT,
    )


def _adaptive(direction: str, where: str, choices: dict[str, tuple[int, ...]], T: int) -> Knob:
    backward = direction != "forward"
    return Knob(
        op="adaptive_attention",
        direction=direction,
        where=where,
        choices=choices,
        sizes=[(shape, backward) for shape in _attention(4, T, 128)],
        small=[(shape, backward) for shape in SHORT[:1]],
    )


KNOBS = {
    "cosine_forward": Knob(
        op="cosine_attention",
        direction="forward",
        where="forward.forward_tiles",
        choices=ATTENTION | STAGES,
        sizes=LONG,
        small=SHORT,
    ),
    "cosine_keys": _of_gradients("keys"),
    "cosine_queries": _of_gradients("queries"),
    "hard_forward": Knob(
        op="hard_attention",
        direction="forward",
        where="forward.forward_tiles",
        choices={"rows": (64, 128, 256), "columns": (32, 64, 128), "warps": (4, 8)} | STAGES,
        sizes=LONG,
        small=SHORT,
    ),
    "adaptive_forward": _adaptive("forward", "forward.forward_tiles", ATTENTION | STAGES, 4096),
    "adaptive_queries": _adaptive(
        "forward+backward", "backward.query_tiles", GRADIENTS | FEWER_STAGES, 2048
    ),
    "adaptive_keys": _adaptive(
        "forward+backward", "backward.key_tiles", GRADIENTS | FEWER_STAGES, 2048
    ),
    "decode": Knob(
        op="cosine_decode",
        direction="forward",
        where="forward.tiles",
        choices={"block_s": (32, 64, 128), "warps": (4, 8), "stages": (2, 3, 4, 5)},
        sizes=[CacheShape(B, 32, 8, 65536, 128) for B in (1, 8)],
        small=[CacheShape(2, 32, 8, 4096, 128)],
    ),
    "patches": Knob(
        op="patch_embed",
        direction="forward",
        where="limits.forward_tiles",
        choices={"block_n": (32, 64, 128), "block_c": (64, 128, 256), "stages": (1, 2, 3)},
        sizes=[(64, 65536, 16, 512)],
        small=[(2, 4096, 16, 512)],
    ),
    "logits": Knob(
        op="scale_cross_entropy",
        direction="forward+backward",
        where="limits.tiles",
        choices={"block_n": (64, 128), "block_v": (128, 256), "warps": (4, 8), "stages": (3, 4)},
        sizes=[(16384, 1024, 65536)],
        small=[(256, 1024, 4096)],
    ),
}
