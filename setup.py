"""Build ``pyseq._core`` with CMake; everything else about the package is in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Build csrc/ with CMake and Ninja; without a working compiler install without ``_core``."""

    def build_extension(self, ext):
        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        # An editable install copies the library into the checkout, and is read from there.
        package = ROOT / "pyseq" if self.editable_mode else library.parent
        error_log = package / "_core_build_error.txt"  # quoted by `pyseq doctor`
        for left_over in (library, package / library.name, error_log):
            left_over.unlink(missing_ok=True)
        try:
            self.run_cmake(library)
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "output", None) or str(error)
            package.mkdir(parents=True, exist_ok=True)
            error_log.write_text(words)
            if os.environ.get("PYSEQ_REQUIRE_CORE") == "1":
                raise RuntimeError(f"pyseq: building _core failed:\n{words}") from error
            sys.stderr.write(f"pyseq: installing without _core, the reference serves:\n{words}\n")

    def run_cmake(self, library: Path):
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
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={library.parent}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        for command in (configure, ["cmake", "--build", str(build)]):
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        if not library.exists():  # setuptools would go on, and install nothing without a word
            raise FileNotFoundError(f"cmake exited with 0 but did not write {library.name}")

    def get_source_files(self):
        """What a source distribution needs beside the Python files."""
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.*"))]


setup(
    # nanobind ignores STABLE_ABI below Python 3.12; were the two out of step, setuptools would look
    # for a file name that CMake did not write.
    ext_modules=[
        Extension("pyseq._core", [], py_limited_api=sys.version_info >= (3, 12), optional=True)
    ],
    cmdclass={"build_ext": CMakeBuild},
)
