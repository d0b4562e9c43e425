"""A small pipeline on DuckDB that ``costinsights demo`` runs and reports on.

`place` puts the program and its configuration into a folder of the user's, where they can be read,
changed and run again: ``python pipeline.py``.
"""

from __future__ import annotations

import os
import shutil

PIPELINE = "pipeline.py"
CONFIGURATION = "costinsights.toml"
LEDGER = "ledger"

_HERE = os.path.dirname(os.path.abspath(__file__))
_MARK = b"# The demo's own configuration"


class NotOurs(Exception):
    """A folder holds something that is not the demo's; it is left alone."""


def place(folder: str) -> None:
    """Make `folder` ready for the demo: its program, its configuration, no ledger yet.

    What an earlier demo has left there is replaced.

    Raises:
        NotOurs: the folder is not empty, and is none of ours.
        OSError: it cannot be written.
    """
    os.makedirs(folder, exist_ok=True)
    if os.listdir(folder) and not _is_ours(folder):
        raise NotOurs(f"{folder} is not empty, and no demo made it")
    ledger = os.path.join(folder, LEDGER)
    if os.path.isdir(ledger):
        shutil.rmtree(ledger)
    for name in (CONFIGURATION, PIPELINE):
        shutil.copyfile(os.path.join(_HERE, name), os.path.join(folder, name))


def _is_ours(folder: str) -> bool:
    try:
        with open(os.path.join(folder, CONFIGURATION), "rb") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False
