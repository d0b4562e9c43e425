"""Reads what dbt leaves behind, as far as costs are told beside it."""

from __future__ import annotations

import os

import msgspec

FILE = "run_results.json"


class Metadata(msgspec.Struct, frozen=True):
    """Which run it was, and when; since dbt 1.10 also when it began."""

    invocation_id: str | None = None
    generated_at: str | None = None
    invocation_started_at: str | None = None


class Result(msgspec.Struct, frozen=True):
    """What became of a node: ``success``, ``error``, ``skipped``, ``pass``, ``fail`` and others."""

    unique_id: str = ""
    status: str = ""


class RunResults(msgspec.Struct, frozen=True):
    """``run_results.json``, as far as it is needed here."""

    metadata: Metadata = Metadata()
    results: list[Result] = []
    elapsed_time: float | None = None


_decode = msgspec.json.Decoder(RunResults).decode


def read(target_path: str) -> RunResults | None:
    """Return the results of the last run that wrote into `target_path`; None if there are none."""
    try:
        with open(os.path.join(target_path, FILE), "rb") as file:
            return _decode(file.read())
    except (OSError, msgspec.MsgspecError):
        return None
