"""Build llama-bench against the libraries of the installed llama-cpp-python.

    pip download --no-deps --no-binary :all: llama-cpp-python==VERSION
    python -m benchmarks.llama_bench llama_cpp_python-VERSION.tar.gz [--jobs 2] [--into FILE]

The sources must be of the same release as the libraries. Needs CMake and a C++ compiler; takes about
three minutes on two cores. Only llama-bench's own code is compiled: what computes is the very
code that llama-tui runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.llama_bench import built


def main() -> None:
    """Build it and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="llama-cpp-python's sdist, packed or unpacked")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time")
    parser.add_argument("--into", type=Path, default=built(), help="where to put the program")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llama-bench") as folder:
        sources = options.sources
        if sources.is_file():
            with tarfile.open(sources) as archive:
                archive.extractall(folder, filter="data")
            sources = next(path for path in Path(folder).iterdir() if path.is_dir())
        wanted = version("llama-cpp-python")
        if f"\nVersion: {wanted}\n" not in (sources / "PKG-INFO").read_text():
            raise SystemExit(f"{sources} is not of llama-cpp-python {wanted}, which is installed")
        build = Path(folder) / "build"
        _call("cmake", "-S", Path(__file__).parent, "-B", build, "-Wno-dev", f"-DLIBRARIES={_libraries()}",
              f"-DLLAMA_CPP={(sources / 'vendor' / 'llama.cpp').resolve()}")  # fmt: skip
        _call("cmake", "--build", build, "--target", "llama-bench", "--parallel", options.jobs)
        options.into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build / "llama-bench", options.into)
    print(options.into)


def _libraries() -> Path:
    """The folder of libllama; the package is found without importing it."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise SystemExit("llama-cpp-python is not installed")
    return Path(found.origin).parent / "lib"


def _call(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True)


if __name__ == "__main__":
    main()
