"""What an installed llama-cpp-python was built for, as the names of its files tell. Nothing of it is loaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path

import msgspec

from corectl.hardware.kernel import names

_LIBRARIES = {"cuda": "cuda", "rocm": "hip", "metal": "metal", "vulkan": "vulkan", "sycl": "sycl"}
"""By variant, best first: the part of ggml that computes so."""
_COMPILERS = {"sycl": ("-DCMAKE_C_COMPILER=icx", "-DCMAKE_CXX_COMPILER=icpx")}
_LIBRARY = re.compile(r"(?:lib)?ggml-([a-z0-9]+)(?:-([a-z0-9_.-]+))?\.(?:so|dylib|dll)(?:\.\d+)*")
_MAIN = re.compile(r"(?:lib)?llama\.(?:so|dylib|dll)(?:\.\d+)*")
_ELSEWHERE = "LLAMA_CPP_LIB_PATH"
"""llama-cpp-python's own variable for a folder with other libraries than its own."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A build that was found.

    `variant` is the way it computes: `cuda`, `rocm`, `metal`, `vulkan`, `sycl` or `cpu`. `folders` are those of its
    libraries; `complete` is false where the main one is missing. `processors` are the kinds of processor that it has a
    library for, of which ggml takes the best; none where there is one for all.
    """

    version: str
    variant: str
    folders: tuple[Path, ...]
    complete: bool = True
    processors: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What builds it anew for exactly this processor."""
        own = [f"-DGGML_{_LIBRARIES[self.variant].upper()}=ON"] if self.variant in _LIBRARIES else []
        options = " ".join([*own, "-DGGML_NATIVE=ON", *_COMPILERS.get(self.variant, ())])
        name = "llama-cpp-python"
        return (
            f'CMAKE_ARGS="{options}" pip install --force-reinstall --no-deps --no-cache-dir '
            f"--no-binary {name} {name}{f'=={self.version}' if self.version else ''}"
        )


def installed() -> Build | None:
    """The build that an import would take; None if there is none. Reads the names of some ten files."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return build_of(Path(spec.submodule_search_locations[0]), version, os.environ.get(_ELSEWHERE, ""))


def build_of(package: Path, version: str, elsewhere: str = "") -> Build:
    """The build in a package's folder, or with its libraries `elsewhere`.

    Libraries that ggml loads by itself, such as those for kinds of processors, are where programs are installed: beside
    the package, in `bin`.
    """
    folders = (Path(elsewhere),) if elsewhere else (package.parent / "bin", package / "lib")
    files = [name for folder in folders for name in names(folder)]
    found = [match.groups() for name in files if (match := _LIBRARY.fullmatch(name))]
    libraries = {library for library, _ in found}
    return Build(
        version=version,
        variant=next((name for name, part in _LIBRARIES.items() if part in libraries), "cpu"),
        folders=folders,
        complete=any(_MAIN.fullmatch(name) for name in files),
        processors=tuple(sorted({kind for library, kind in found if library == "cpu" and kind})),
    )
