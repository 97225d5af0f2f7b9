"""Installing pyseq as its users do: with and without a compiler, editable, regular, from a sdist.

Every install starts from a copy of the tracked files, so the developer's checkout stays as it is.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib

import pytest

from tests.packaging.checkout import BORROWED, ROOT, Environment, copy_checkout, run, tracked_files

NOT_BUILT = "running from a checkout that was not built: pip install -e ."
COMPILER_SAYS = "c++: the parser is on holiday"

# Uses _core with nothing but the standard library.
BARE = """
import array, glob, importlib.util, sys
[path] = glob.glob("pyseq/_core*.so")
spec = importlib.util.spec_from_file_location("pyseq._core", path)
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
source = core.source_in_memory([array.array("H", [7, 8, 9])])
out = memoryview(bytearray(4)).cast("H", (1, 2))
core.gather_windows(source, array.array("q", [1]), out, 1)
assert not {"torch", "numpy"} & set(sys.modules)
print(out.tolist())
"""

GATHER = """
import torch, pyseq.data, pyseq.nn, pyseq.ops, pyseq.kernels.gather_windows.forward as kernel
stream, offsets = torch.tensor([7, 8, 9], dtype=torch.uint16), torch.tensor([1])
def gather(backend):
    try:
        return pyseq.ops.gather_windows(stream, offsets, 2, backend=backend).tolist()
    except pyseq.ops.BackendUnavailable as refusal:
        return refusal
print("kernel", kernel.__file__)
print("auto", gather("auto"))
print("native", gather("native"))
"""

TOP_LEVEL_KERNELS = """
import importlib.util
spec = importlib.util.find_spec("kernels")
print(list(spec.submodule_search_locations or [spec.origin]) if spec else "none")
"""


def doctor_row(words: str) -> list[str]:
    """The cells of gather_windows in what `pyseq doctor` prints."""
    [row] = [line for line in words.splitlines() if "gather_windows" in line and "yes" in line]
    return [cell.strip() for cell in row.strip("│┃ ").split("│")]


PORTABLE = {"CMAKE_ARGS": "-DPYSEQ_PORTABLE_ONLY=ON"}


def build_requirements() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Environment:
    """An environment with the tools of the build, for installs without isolation."""
    environment = Environment(tmp_path_factory.mktemp("workshop") / "venv")
    done = environment.pip_install(*build_requirements(), cwd=ROOT)
    assert done.returncode == 0, done.stdout
    return environment


@pytest.fixture
def checkout(tmp_path):
    return copy_checkout(tmp_path / "checkout")


def install(workshop, checkout, *arguments, **variables):
    """Install into the workshop, whose tools are the only ones if PATH is not given."""
    variables = {"PATH": f"{workshop.bin}:{os.environ['PATH']}"} | PORTABLE | variables
    return workshop.pip_install(
        "--no-build-isolation", *arguments, checkout, cwd=checkout, **variables
    )


@pytest.fixture
def broken_compiler(tmp_path) -> dict[str, str]:
    script = tmp_path / "c++"
    script.write_text(f"#!/bin/sh\necho '{COMPILER_SAYS}' >&2\nexit 1\n")
    script.chmod(0o755)
    return {"CXX": str(script)}


def source_distribution(workshop, checkout, folder):
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    done = run(workshop.bin / "python", "-c", code, cwd=checkout)
    assert done.returncode == 0, done.stdout
    [archive] = folder.glob("*.tar.gz")
    return archive


# -- installs that work: build isolation, an empty environment ------------------------------------


class Installed:
    """pyseq in an environment that held nothing, built by tools that pip fetched for the build."""

    def __init__(self, kind, folder, workshop):
        self.kind = kind
        self.checkout = copy_checkout(folder / "checkout")
        self.environment = Environment(folder / "venv")
        what = {"editable": ["-e", "."], "regular": ["."]}.get(kind)
        if what is None:
            what = [source_distribution(workshop, self.checkout, folder)]
        # The whole of it was built for the environment that these tests run in.
        done = self.environment.pip_install(*what, cwd=self.checkout, **PORTABLE)
        assert done.returncode == 0, done.stdout
        holder = self.checkout if kind == "editable" else self.environment.site_packages
        self.package = holder / "pyseq"


@pytest.fixture(scope="module", params=["editable", "regular", "sdist"])
def installed(request, tmp_path_factory, workshop) -> Installed:
    return Installed(request.param, tmp_path_factory.mktemp(request.param), workshop)


@pytest.mark.slow
def test_the_core_was_built_and_needs_neither_torch_nor_numpy(installed):
    assert not (installed.package / "_core_build_error.txt").exists()
    done = run(installed.environment.bin / "python", "-c", BARE, cwd=installed.package.parent)
    assert done.stdout == "[[8, 9]]\n"
    suffix = ".abi3.so" if sys.version_info >= (3, 12) else sysconfig.get_config_var("EXT_SUFFIX")
    assert (installed.package / f"_core{suffix}").is_file()


@pytest.mark.slow
def test_it_works_from_elsewhere(installed, tmp_path):
    said = installed.environment.use("python", "-c", GATHER, cwd=tmp_path).splitlines()
    kernel = installed.package / "kernels" / "gather_windows" / "forward.py"
    assert said == [f"kernel {kernel}", "auto [[8, 9]]", "native [[8, 9]]"]


@pytest.mark.slow
def test_the_kernels_are_found_from_the_root_of_the_checkout(installed):
    said = installed.environment.use("python", "-c", GATHER, cwd=installed.checkout)
    # Python looks in the working directory first, so this is the checkout's code in any case.
    assert f"kernel {installed.checkout}/pyseq/kernels/gather_windows/forward.py" in said
    assert "auto [[8, 9]]" in said
    assert ("native [[8, 9]]" in said) == (installed.kind == "editable")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_the_console_script_says_that_native_serves(installed, where, tmp_path):
    cwd = installed.checkout if where == "root" else tmp_path
    assert doctor_row(installed.environment.use("pyseq", "doctor", cwd=cwd))[:3] == [
        "gather_windows",
        "yes",
        "yes",
    ]


@pytest.mark.slow
def test_no_top_level_name_but_pyseq(installed, tmp_path):
    said = installed.environment.use("python", "-c", TOP_LEVEL_KERNELS, cwd=tmp_path)
    assert str(installed.checkout) not in said
    assert str(installed.environment.site_packages) not in said
    packages = {name for name in installed.environment.added() if not name.startswith("__")}
    expected = {"pyseq-0.1.0.dist-info"} | ({"pyseq"} if installed.kind != "editable" else set())
    assert packages == expected


@pytest.mark.slow
def test_every_python_file_and_the_licence_are_installed(installed):
    for name in tracked_files("pyseq/**.py", "kernels/**.py"):
        assert (installed.package / name.removeprefix("pyseq/")).read_bytes() == (
            ROOT / name
        ).read_bytes()
    assert (installed.package / "py.typed").is_file()
    if installed.kind != "editable":
        assert not (installed.package / "kernels").is_symlink()
    metadata = installed.environment.site_packages / "pyseq-0.1.0.dist-info"
    assert (metadata / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in (metadata / "METADATA").read_text()


@pytest.mark.slow
def test_a_source_distribution_holds_all_of_csrc(workshop, checkout, tmp_path):
    with tarfile.open(source_distribution(workshop, checkout, tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked_files("csrc", "setup.py", "pyproject.toml", "LICENSE")) <= names
    assert {f"pyseq/{name}" for name in tracked_files("kernels")} <= names


def python_3_12() -> str | None:
    """PYSEQ_TEST_PYTHON or python3.12, if it starts and is 3.12 (a pyenv shim may do neither)."""
    python = os.environ.get("PYSEQ_TEST_PYTHON") or shutil.which("python3.12")
    if python is None:
        return None
    code = "import ensurepip, sys; print(*sys.version_info[:2], sep='.')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return python if done.stdout.strip() == "3.12" else None


@pytest.mark.slow
def test_python_3_12_gets_the_stable_abi(checkout, tmp_path):
    python = python_3_12()
    if python is None:
        pytest.skip("python3.12 does not start here; PYSEQ_TEST_PYTHON may name one that does")
    environment = Environment(tmp_path / "venv", python)
    done = environment.pip_install("-e", ".", cwd=checkout, **PORTABLE)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in (checkout / "pyseq").glob("_core*")] == ["_core.abi3.so"]
    assert run(environment.bin / "python", "-c", BARE, cwd=checkout).stdout == "[[8, 9]]\n"


# -- installs that cannot build _core -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["-e"], []], ids=["editable", "regular"])
def test_without_a_compiler_the_reference_serves(
    mode, workshop, checkout, tmp_path, broken_compiler
):
    done = install(workshop, checkout, *mode, **broken_compiler)
    assert done.returncode == 0, done.stdout
    said = workshop.use("pyseq", "doctor", cwd=tmp_path)
    assert COMPILER_SAYS in said
    assert doctor_row(said)[:3] == ["gather_windows", "yes", "no"]
    said = workshop.use("python", "-c", GATHER, cwd=tmp_path)
    assert "auto [[8, 9]]" in said
    assert "native gather_windows: backend 'native' cannot serve this call: building" in said


@pytest.mark.slow
def test_a_core_that_is_required_is_not_left_out(workshop, checkout, broken_compiler):
    done = install(workshop, checkout, "-e", PYSEQ_REQUIRE_CORE="1", **broken_compiler)
    assert done.returncode != 0
    assert COMPILER_SAYS in done.stdout


@pytest.mark.slow
def test_an_install_that_fails_leaves_no_older_core_and_one_that_works_no_error(
    workshop, checkout, tmp_path, broken_compiler
):
    assert install(workshop, checkout, "-e", **broken_compiler).returncode == 0
    assert install(workshop, checkout, "-e").returncode == 0
    assert not (checkout / "pyseq" / "_core_build_error.txt").exists()
    assert "native [[8, 9]]" in workshop.use("python", "-c", GATHER, cwd=tmp_path)
    assert install(workshop, checkout, "-e", **broken_compiler).returncode == 0
    assert [path.name for path in (checkout / "pyseq").glob("_core*")] == ["_core_build_error.txt"]


@pytest.mark.slow
def test_without_cmake_doctor_says_that_it_is_missing(workshop, checkout, tmp_path):
    done = install(workshop, checkout, "-e", PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "No such file or directory: 'cmake'" in workshop.use("pyseq", "doctor", cwd=tmp_path)


@pytest.mark.slow
def test_a_build_that_writes_nothing_is_no_success(workshop, checkout, tmp_path):
    cmake = tmp_path / "cmake"
    cmake.write_text("#!/bin/sh\n")
    cmake.chmod(0o755)
    done = install(workshop, checkout, "-e", PATH=str(tmp_path), PYSEQ_REQUIRE_CORE="1")
    assert done.returncode != 0
    assert "cmake exited with 0 but did not write _core" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("required", [True, False])
def test_broken_cpp_passes_only_where_the_core_is_not_required(
    required, workshop, checkout, tmp_path
):
    with (checkout / "csrc" / "core.cpp").open("a") as source:
        source.write("#error written by a test\n")
    variables = {"PYSEQ_REQUIRE_CORE": "1"} if required else {}
    done = install(workshop, checkout, "-e", **variables)
    assert (done.returncode != 0) == required, done.stdout
    if required:
        assert "#error written by a test" in done.stdout
    else:
        said = workshop.use("pyseq", "doctor", cwd=tmp_path)
        assert "#error written by a test" in said
        assert "auto [[8, 9]]" in workshop.use("python", "-c", GATHER, cwd=tmp_path)


def test_a_checkout_that_was_never_built_says_so(checkout, tmp_path):
    def say(*arguments):
        # -S: the finder of an editable install would offer the _core of another checkout.
        path = f"{checkout}:{BORROWED}"
        done = run(sys.executable, "-S", *arguments, cwd=tmp_path, PYTHONPATH=path)
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert NOT_BUILT in say("-m", "pyseq", "doctor")
    said = say("-c", GATHER)
    assert "auto [[8, 9]]" in said
    assert re.search(rf"auto chose reference \(.*native: {re.escape(NOT_BUILT)}\)", said)
