"""Builds the native kernels. All else is in pyproject.toml.

Without a C++ compiler the package is installed without them (``optional``), and inspects more
slowly: ``efficientad-stream run`` says so.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = "efficientad_stream/backends/native"
API = hashlib.sha256(Path(NATIVE, "api.h").read_bytes()).hexdigest()
COMMON = [
    f'-DEA_API="{API}"',
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
]
OF_SOURCE = {
    "avx2.cpp": ["-mavx2", "-mfma"],
    "avx512.cpp": ["-mavx512f", "-mprefer-vector-width=512"],
}
"""Each instruction set is a source of its own; the processor at hand decides which one runs."""


class BuildKernels(build_ext):
    """Compiles some sources with flags of their own, which setuptools has no words for."""

    def run(self) -> None:
        """Build as usual; setuptools forgets meanwhile whether that is for the source tree."""
        self._into_sources = bool(self.inplace or getattr(self, "editable_mode", False))
        super().run()

    def build_extension(self, extension: Extension) -> None:
        """Build as usual, with the flags of ``OF_SOURCE`` added."""
        # one that belongs to other sources must not survive where this one is to be
        stale = [self.get_ext_fullpath(extension.name)]
        if self._into_sources:
            stale.append(f"{NATIVE}/{Path(self.get_ext_filename(extension.name)).name}")
        for old in stale:
            Path(old).unlink(missing_ok=True)
        compile_one = self.compiler._compile  # noqa: SLF001 - the only place where a source is known
        x86 = platform.machine() in ("x86_64", "AMD64")

        def compile_with_own_flags(obj: str, src: str, *rest: Any) -> None:
            ext, cc_args, postargs, pp_opts = rest
            own = OF_SOURCE.get(src.rsplit("/", 1)[-1], []) if x86 else []
            compile_one(obj, src, ext, cc_args, [*postargs, *own], pp_opts)

        self.compiler._compile = compile_with_own_flags  # noqa: SLF001
        super().build_extension(extension)


sources = ("context", "portable", "avx2", "avx512")
headers = ("api.h", "context.h", "kernels.inl", "vec.inl", "transforms.inl", "gemm.inl",
           "winograd.inl", "direct.inl")  # fmt: skip
setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            "efficientad_stream.backends.native._kernels",
            [f"{NATIVE}/{name}.cpp" for name in sources],
            depends=[f"{NATIVE}/{name}" for name in headers],
            extra_compile_args=COMMON,
            extra_link_args=["-pthread"],
            language="c++",
            optional=not os.environ.get("CI"),
        )
    ],
)
