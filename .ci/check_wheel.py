"""Check what is in a wheel: all three packages, typed, with their plug-ins' doors, and nothing else.

Usage: python check_wheel.py dist/costinsights-….whl
"""

from __future__ import annotations

import sys
import zipfile
from configparser import ConfigParser
from pathlib import PurePosixPath

PACKAGES = {"costinsights", "costinsights_exporters", "costinsights_instrumentors"}
GROUPS = {
    "console_scripts",
    "costinsights_driver",
    "costinsights_exporter",
    "costinsights_framework",
    "costinsights_history",
    "costinsights_puller",
    "costinsights_instrumentor",
    "dagster_dg_cli.registry_modules",
    "opentelemetry_instrumentor",
}
COMPILED = "costinsights/_quick.abi3.so"
OTHERS = {"costinsights_driver"}
"""Groups whose entries name modules of others."""


def complaints(wheel: zipfile.ZipFile) -> list[str]:
    """Return what is wrong with `wheel`, one sentence each."""
    names = set(wheel.namelist())
    tops = {PurePosixPath(name).parts[0] for name in names}
    (metadata,) = (top for top in tops if top.endswith(".dist-info"))
    found = [f"{top} does not belong in it" for top in sorted(tops - PACKAGES - {metadata})]
    found += [f"{name} is missing" for name in sorted(_needed(metadata) - names)]
    binaries = {name for name in names if name.endswith((".pyc", ".so"))}
    found += [f"{name} is compiled" for name in sorted(binaries - {COMPILED})]
    # Code that runs at every start of the interpreter is what attackers install.
    found += [f"{name} runs unasked" for name in sorted(names) if name.endswith(".pth")]

    doors = ConfigParser()
    doors.read_string(wheel.read(f"{metadata}/entry_points.txt").decode())
    if set(doors.sections()) != GROUPS:
        found.append(f"entry points are in {doors.sections()}")
    for group in set(doors.sections()) - OTHERS:
        for name, target in doors[group].items():
            module = target.partition(":")[0].replace(".", "/")
            if not {f"{module}.py", f"{module}/__init__.py"} & names:
                found.append(f"the entry point {group} {name} leads to no module: {target}")
    extras = [
        line.removeprefix("Provides-Extra: ")
        for line in wheel.read(f"{metadata}/METADATA").decode().splitlines()
        if line.startswith("Provides-Extra: ")
    ]
    # OpenTelemetry's loader takes these for what must be installed before any plug-in is loaded.
    found += [f"no extra may be called {extra}" for extra in extras if "instruments" in extra]
    found += [
        f"the plug-in {name} has no extra"
        for name in doors["costinsights_instrumentor"]
        if name.replace("_", "-") not in extras
    ]
    return found


def _needed(metadata: str) -> set[str]:
    typed = {f"{package}/py.typed" for package in PACKAGES}
    return typed | {COMPILED, f"{metadata}/licenses/LICENSE", f"{metadata}/entry_points.txt"}


def main(path: str) -> int:
    """Print every complaint about the wheel at `path`."""
    with zipfile.ZipFile(path) as wheel:
        found = complaints(wheel)
    for complaint in found:
        print(f"{path}: {complaint}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
