"""Compiles `costinsights/_quick.c` into the wheel; where that cannot be done the wheel has none.

The module is of the stable ABI: one wheel serves CPython 3.10 and all that come after it. Without it,
and with ``COSTINSIGHTS_PURE=1`` in the environment, the wheel is of pure Python, does the same, and
costs the caller some more CPU.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/costinsights/_quick.c")
COMPILED = SOURCE.with_suffix(".abi3.so")
SHARED = {"darwin": ["-bundle", "-undefined", "dynamic_lookup"]}


class CompileHook(BuildHookInterface[Any]):
    """Compiles the one module that is in C, beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say in the wheel's name what it is for."""
        if self.target_name != "wheel":
            return
        compiled = Path(self.root) / COMPILED
        compiled.unlink(missing_ok=True)
        problem = why_not() or compile_to(compiled, Path(self.root) / SOURCE)
        if problem is not None:
            self.app.display_warning(f"costinsights is built without its module in C: {problem}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp310-abi3-{platform}"
        if version != "editable":
            build_data["force_include"][str(compiled)] = f"costinsights/{compiled.name}"


def why_not() -> str | None:
    """Say why nothing is to be compiled here, or None."""
    if os.environ.get("COSTINSIGHTS_PURE") == "1":
        return "COSTINSIGHTS_PURE=1"
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "only CPython with its lock has the stable ABI"
    return "there is no compiler for Windows here" if os.name == "nt" else None


def compile_to(target: Path, source: Path) -> str | None:
    """Run the compiler that Python was built with; say what went wrong, or None."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [
        *shlex.split(compiler),
        *("-O2", "-fPIC", "-fvisibility=hidden", "-I", sysconfig.get_path("include")),
        *SHARED.get(sys.platform, ["-shared"]),
        *(str(source), "-o", str(target)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode:
        target.unlink(missing_ok=True)
        return next(iter(done.stderr.splitlines()), f"{compiler} ended with {done.returncode}")
    return None
