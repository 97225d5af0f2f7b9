"""Build ``pyseq._core`` with CMake; everything else about the package is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure and build csrc/ with Ninja; without a working compiler install without ``_core``."""

    def build_extension(self, ext):
        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        error_log = library.parent / "_core_build_error.txt"  # quoted by `pyseq doctor`
        try:
            self.run_cmake(library.parent)
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "output", None) or str(error)
            if os.environ.get("PYSEQ_REQUIRE_CORE") == "1":
                raise RuntimeError(f"pyseq: building _core failed:\n{words}") from error
            error_log.parent.mkdir(parents=True, exist_ok=True)
            error_log.write_text(words)
            sys.stderr.write(f"pyseq: installing without _core, the reference serves:\n{words}\n")
        else:
            error_log.unlink(missing_ok=True)

    def run_cmake(self, output: Path):
        build = Path(self.build_temp).resolve()
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        configure = [
            "cmake",
            "-G",
            "Ninja",
            "-S",
            str(ROOT / "csrc"),
            "-B",
            str(build),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
        ]
        for command in (configure, ["cmake", "--build", str(build)]):
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )


setup(
    # nanobind ignores STABLE_ABI below Python 3.12; were the two out of step, an editable install
    # would look for a file name that CMake did not write and copy nothing.
    ext_modules=[
        Extension("pyseq._core", [], py_limited_api=sys.version_info >= (3, 12), optional=True)
    ],
    cmdclass={"build_ext": CMakeBuild},
)
