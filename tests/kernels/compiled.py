"""Compile what a launch would run, for GPUs that need not be there, and read the machine code.

A test module names launches in ``LAUNCHES``: functions that call a launch function of
``pyseq.kernels`` on tensors on the CPU. Here nothing is launched: every kernel they would run is
compiled with the same arguments, tiles and specialisation for each of `CAPABILITIES`. It happens
in a process of its own, because in the tests' process Triton interprets.

``python -m tests.kernels.compiled tests.kernels.test_OP --store`` stores the instruction counts of
all main loops in ``instruction_counts/test_OP.csv``, which `check_counts` compares.
"""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

CAPABILITIES = (80, 90)
# That a block can have. Tiles for 8.0, which has 163 KiB, are those of 8.6, 8.9 and 12.0 too.
SHARED_BYTES = {80: 99 << 10, 90: 227 << 10}
COUNTS = Path(__file__).parent / "instruction_counts"
PINNED = "3.9.0"  # Triton, in constraints.txt
COLUMNS = ("launch", "kernel", "capability", "loop", "instructions", "triton")


@dataclass(frozen=True)
class Loop:
    """An innermost loop of the machine code."""

    instructions: int
    mma: int  # tensor-core instructions


@dataclass(frozen=True)
class Compiled:
    """One kernel of one launch for one GPU."""

    launch: str
    kernel: str
    capability: int
    registers: int  # per thread
    spills: int  # instructions that move registers to or from local memory
    shared_bytes: int
    mma: int
    operations: dict[str, int]  # how many instructions of each name, such as STG.E.128
    loops: tuple[Loop, ...]


@cache
def compiled(module: str) -> tuple[Compiled, ...]:
    """Everything that the launches of a test module would run."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compiled", module]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return tuple(
        Compiled(**kernel | {"loops": tuple(Loop(**x) for x in kernel["loops"])})
        for kernel in found
    )


def check_fits(kernel: Compiled, *, tensor_cores: bool = True) -> None:
    """No spills, shared memory that a block can have, and tensor cores in its loops.

    Which registers are spilled is the compiler's choice: tiles are chosen for the `PINNED` one.
    """
    assert kernel.spills == 0 or _version() != PINNED, kernel
    assert kernel.shared_bytes <= SHARED_BYTES[kernel.capability], kernel
    if tensor_cores:
        assert kernel.mma > 0, kernel
        assert any(loop.mma for loop in kernel.loops), kernel


def check_counts(module: str) -> None:
    """The instruction counts of all innermost loops are the stored ones, for the same Triton."""
    with open(_file(module), newline="") as lines:
        stored = list(csv.DictReader(lines))
    rows = [{k: str(v) for k, v in row.items()} for row in _rows(module)]
    assert {row["triton"] for row in stored} == {PINNED}
    if _version() != PINNED:
        return  # another compiler, other counts
    assert rows == stored, "python -m tests.kernels.compiled MODULE --store, and look at the change"


def _rows(module: str) -> list[dict[str, Any]]:
    return [
        dict(zip(COLUMNS, (k.launch, k.kernel, k.capability, i, x.instructions, _version()),
                 strict=True))
        for k in compiled(module)
        for i, x in enumerate(k.loops)
    ]  # fmt: skip


def _file(module: str) -> Path:
    return COUNTS / f"{module.rpartition('.')[2]}.csv"


def _version() -> str:
    import triton

    return triton.__version__


def _compile_all(module: str) -> list[Compiled]:
    """In the process without an interpreter: record the launches and compile them."""
    from triton.runtime.jit import JITFunction

    from pyseq.kernels import launch as settings

    found: list[Compiled] = []
    for capability in CAPABILITIES:
        for name, launch in importlib.import_module(module).LAUNCHES.items():

            def run(kernel, *arguments, grid, name=name, capability=capability, **options):
                found.append(_compile(kernel, arguments, options, name, capability))

            JITFunction.run = run
            settings.capability = lambda _x, capability=capability: capability
            launch()
    return found


def _compile(kernel, arguments, options, name: str, capability: int) -> Compiled:
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = dict(options)
    options.pop("warmup", None)
    named = dict(zip(kernel.arg_names, arguments, strict=False))
    named |= {k: options.pop(k) for k in list(options) if k in kernel.arg_names}
    missing = [p.name for p in kernel.params if p.name not in named]
    assert not missing, f"{kernel.__name__}: no value for {missing}"
    signature, constants, attributes = {}, {}, {}
    for parameter in kernel.params:
        value = named[parameter.name]
        place = (parameter.num,)
        one = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or one:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = "*" + TYPES[str(value.dtype).removeprefix("torch.")]
            attributes[place] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[place] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return _read(made, name, kernel.__name__, capability)


TYPES = {  # torch's dtypes as Triton spells them
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint16": "u16",
    "uint8": "u8",
    "bool": "i1",
}


def _read(made, name: str, kernel: str, capability: int) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(made.asm["cubin"])
        cubin.flush()
        sass = _cuobjdump("-sass", cubin.name)
        usage = _cuobjdump("-res-usage", cubin.name)
    line = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", re.MULTILINE)
    code = [(int(at, 16), text) for at, text in line.findall(sass)]
    assert code, sass
    texts = [text for _, text in code]
    return Compiled(
        launch=name,
        kernel=kernel,
        capability=capability,
        registers=int(re.findall(r"REG:(\d+)", usage)[0]),
        spills=sum(bool(re.search(r"\b(LDL|STL)\b", text)) for text in texts),
        shared_bytes=made.metadata.shared,
        mma=sum(map(_is_mma, texts)),
        operations=dict(Counter(re.sub(r"^@!?U?P\w+ +", "", text).split()[0] for text in texts)),
        loops=tuple(_innermost_loops(code)),
    )


def _innermost_loops(code: list[tuple[int, str]]) -> list[Loop]:
    """Between a branch and its earlier target, no other such branch inside."""
    index = {at: i for i, (at, _) in enumerate(code)}
    spans = []
    for i, (at, text) in enumerate(code):
        target = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if target and int(target[1], 16) < at:
            spans.append((index[int(target[1], 16)], i))
    inner = [
        (a, b)
        for a, b in spans
        if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in spans)
    ]
    return [
        Loop(b - a + 1, sum(_is_mma(text) for _, text in code[a : b + 1])) for a, b in sorted(inner)
    ]


def _is_mma(text: str) -> bool:
    return re.search(r"\b(HMMA|HGMMA|IMMA|IGMMA|QGMMA)\.", text) is not None


def _cuobjdump(option: str, path: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    done = subprocess.run([tool, option, path], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def main() -> None:
    """Print what was compiled, or store its counts."""
    module = sys.argv[1]
    if "--store" in sys.argv:
        COUNTS.mkdir(exist_ok=True)
        with open(_file(module), "w", newline="") as lines:
            writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(_rows(module))
        return
    print(json.dumps([asdict(kernel) for kernel in _compile_all(module)]))


if __name__ == "__main__":
    main()
