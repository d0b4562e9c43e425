"""Event logs that are large, torn, compressed, rolled, or not as Spark writes them."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.ledger.reader import read_ledger
from costinsights.settlement.history import HistoryError
from costinsights.settlement.settling import settle
from costinsights.settlement.spark import SparkHistory
from costinsights.systems.spark_log import EventLog, LogError, lines, logs_in
from tests.servers.spark_events import (
    APPLICATION,
    RUN_MS,
    START,
    beginning,
    ending,
    execution,
    large,
    line,
    whole,
    written,
)
from tests.servers.spark_session import PRICE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

BEGUN = datetime.fromtimestamp(START / 1000, timezone.utc)


def settled(tmp_path: Path, options: dict[str, Any], **more: Any) -> Settled:
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICE, encoding="utf-8")
    config: dict[str, Any] = {"price_books": [str(prices)], **more}
    return settle(
        "spark",
        BEGUN - timedelta(hours=1),
        BEGUN + timedelta(hours=3),
        all=True,
        history=SparkHistory(options),
        ledger=tmp_path / "ledger",
        config=config,
        now=BEGUN + timedelta(hours=4),
    )


def charges(tmp_path: Path) -> dict[str, Charge]:
    """Return what jobs were charged for; idle hours have no id of the vendor's."""
    return {
        charge.vendor_id.removeprefix(APPLICATION): charge
        for charge in read_ledger(str(tmp_path / "ledger"))
        if charge.vendor_id is not None
    }


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def nothing(_: int) -> None:
    pass


def read(path: Path) -> tuple[int, int]:
    """Return how many units a log has, and how much their tasks ran, in ms."""
    (log,) = logs_in(str(path))
    found = EventLog(log)
    units = list(found.units(nothing))
    return len(units), sum(unit.sums[0] for unit in units)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """A tenth of the log takes as much of it as the whole: what is kept is what is under way."""
    peaks: list[int] = []
    for size in (1_500_000, 12_000_000):
        path = tmp_path / f"app-{size}"
        tasks = large(path, size)
        (log,) = logs_in(str(path))
        read_bytes = ran = 0

        def advance(count: int) -> None:
            nonlocal read_bytes
            read_bytes += count

        tracemalloc.start()
        for unit in EventLog(log).units(advance):
            ran += unit.sums[0]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert ran == tasks * RUN_MS
        assert read_bytes == log.size, "the progress bar comes to its end"
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 16_000_000


def test_a_log_is_settled_once(tmp_path: Path) -> None:
    written(tmp_path / APPLICATION, whole(10, 3))
    options = {"logs": [str(tmp_path / APPLICATION)]}
    first = settled(tmp_path, options)
    assert (first.added, first.incomplete, first.failed) == (11, [], "")
    found = charges(tmp_path)
    third = found["/sql/3"]
    assert third.usage["core_seconds"] == 0.06
    assert third.usage["shuffle_read_bytes"] == 69
    assert third.attribution["asset"] == "table_3"
    assert third.amount == "0.000000800000000"  # 0.06 s of an hour's 0.048 USD
    assert third.resource.address == "master.example"
    assert (third.resource.port, third.resource.namespace) == (7077, "synthetic")
    idle = found[""]
    assert idle.usage["allocated_core_seconds"] == 88
    assert idle.usage["core_seconds"] == 87.4
    again = settled(tmp_path, options)
    assert (again.added, again.unchanged) == (0, 11)


def test_rolled_logs_are_one(tmp_path: Path) -> None:
    """A job may begin in one file and end in the next."""
    folder = tmp_path / f"eventlog_v2_{APPLICATION}"
    folder.mkdir()
    every = list(whole(4, 5))
    for number, part in enumerate((every[:20], every[20:31], every[31:]), 1):
        written(folder / f"events_{number}_{APPLICATION}", iter(part))
    (folder / f"appstatus_{APPLICATION}").touch()
    written(folder / f"events_10_{APPLICATION}", iter(()))
    (log,) = logs_in(str(tmp_path))
    assert [os.path.basename(file).split("_")[1] for file in log.files] == ["1", "2", "3", "10"]
    assert read(folder) == (4, 4 * 5 * RUN_MS)


def test_what_was_compacted_away_is_said(tmp_path: Path, logs: Path) -> None:
    folder = logs / f"eventlog_v2_{APPLICATION}"
    folder.mkdir()
    every = list(whole(4, 5))
    written(folder / f"events_1_{APPLICATION}", iter(every))
    written(folder / f"events_2_{APPLICATION}.compact", iter(every[:4]))
    written(folder / f"events_3_{APPLICATION}", iter(every[4:]))
    found = settled(tmp_path, {"logs": [str(logs)]})
    assert found.added == 5
    assert "compacted" in found.incomplete[0]


def test_who_watches_sees_how_much_of_a_log_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / APPLICATION, whole(10, 3))
    seen: list[tuple[str, int, int | None]] = []
    settle(
        "spark",
        BEGUN,
        all=True,
        dry_run=True,
        history=SparkHistory({"logs": [str(path)]}),
        ledger=tmp_path / "ledger",
        now=BEGUN + timedelta(hours=4),
        progress=lambda what, done, of: seen.append((what, done, of)),
    )
    size = path.stat().st_size
    assert [told for told in seen if told[0].startswith("reading event logs")][-1][1:] == (
        size,
        size,
    )


def test_a_torn_line_is_still_being_written(tmp_path: Path, logs: Path) -> None:
    text = "\n".join([*beginning(), *execution(0, 2), *execution(1, 2, ends=False)])
    path = logs / f"{APPLICATION}.inprogress"
    path.write_text(text + '\n{"Event":"SparkListenerTaskEnd","Stage ID":1,"Sta', encoding="utf-8")
    options = {"logs": [str(logs)]}
    found = settled(tmp_path, options)
    assert (found.added, found.incomplete) == (3, [])
    so_far = charges(tmp_path)
    assert {id_: charge.partial for id_, charge in so_far.items()} == {
        "/sql/0": False,
        "/sql/1": True,
        "": True,
    }
    assert so_far["/sql/1"].usage["tasks"] == 2
    # It goes on, and ends.
    written(path, whole(2, 3))
    path.rename(logs / APPLICATION)
    found = settled(tmp_path, options)
    assert found.added == 3
    assert charges(tmp_path)["/sql/1"].usage["tasks"] == 3
    assert not any(charge.partial for charge in charges(tmp_path).values())


def test_a_driver_that_was_killed_ends_with_its_last_word(tmp_path: Path, logs: Path) -> None:
    lines_ = iter([*beginning(), *execution(0, 2), *execution(1, 2, ends=False)])
    path = written(logs / f"{APPLICATION}.inprogress", lines_)
    os.utime(path, (START / 1000 + 10, START / 1000 + 10))
    settled(tmp_path, {"logs": [str(logs)]})
    found = charges(tmp_path)
    lost = found["/sql/1"]
    assert lost.error is not None
    assert (lost.error.type, lost.partial, lost.usage["tasks"]) == ("LOST", False, 2)
    assert found["/sql/0"].error is None
    assert not found[""].partial


@pytest.mark.parametrize("run", ["20", None, 1.5, [], {}, True])
def test_a_figure_that_is_none_leaves_its_charge_unknown(
    tmp_path: Path, logs: Path, run: object
) -> None:
    """The others are whole, and the raw figures of this one's other tasks are kept."""
    every = [*beginning(), *execution(0, 2), *execution(1, 3, run=run), *ending(2)]
    written(logs / APPLICATION, iter(every))
    found = settled(tmp_path, {"logs": [str(logs)]})
    bad, good = charges(tmp_path)["/sql/1"], charges(tmp_path)["/sql/0"]
    assert (bad.basis, bad.amount, bad.usage["tasks"]) == ("unknown", None, 2)
    assert (good.basis, good.usage["tasks"]) == ("metered", 2)
    assert "1 lines that are not as Spark writes them" in found.incomplete[0]


def test_lines_of_others_are_passed_over(tmp_path: Path) -> None:
    every = list(whole(1, 1))
    every[5:5] = [
        line("SparkListenerNobodyKnows", Timestamp="?"),
        line("org.example.Ours", anything=1),
        '{"Event":"SparkListenerTaskEnd"',
        "no JSON at all",
        '{"Event":"SparkListenerTaskEnd","Stage ID":"0"}',
        "\udcff",
    ]
    path = tmp_path / APPLICATION
    path.write_bytes("\n".join(every).encode("utf-8", "surrogateescape") + b"\n")
    assert read(path) == (1, RUN_MS)


def test_gzip_is_read_and_lzf_is_said(tmp_path: Path) -> None:
    path = tmp_path / f"{APPLICATION}.gz"
    path.write_bytes(gzip.compress("\n".join([*whole(3, 2), ""]).encode()))
    assert read(path) == (3, 3 * 2 * RUN_MS)
    torn = tmp_path / f"{APPLICATION}-2.gz"
    torn.write_bytes(path.read_bytes()[:-200])
    assert read(torn)[0] <= 3, "a driver that was killed leaves such a one"
    other = tmp_path / f"{APPLICATION}.lzf"
    other.write_bytes(b"ZV\0")
    with pytest.raises(LogError, match=r"set spark\.eventLog\.compression\.codec to zstd"):
        list(lines(str(other), nothing))


def test_without_the_library_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{APPLICATION}.zstd"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(LogError, match="pip install pyarrow"):
        list(lines(str(path), nothing))


def test_hours_of_a_cluster_are_shared_by_core_seconds(tmp_path: Path) -> None:
    """Ten cores for an hour are 36,000 core-seconds; what nobody had of them is idle."""
    written(tmp_path / APPLICATION, whole(10, 300))
    capacity = {
        "name": "cluster",
        "system": "spark",
        "host": "master.example",
        "price": "3.60",
        "currency": "USD",
    }
    options = {"logs": [str(tmp_path / APPLICATION)], "cores": 10}
    found = settled(tmp_path, options, capacity=[capacity])
    assert not found.unpriced, found.unpriced
    every = charges(tmp_path)
    execution_ = every["/sql/4"]  # 6 core-seconds at a ten-thousandth
    assert (execution_.basis, execution_.amount) == ("allocated", "0.000600000000000")
    application = every[""]
    assert application.usage["core_seconds"] == 88 - 60
    assert application.amount == "0.002800000000000"
    hours = [
        float(charge.amount or 0)
        for charge in read_ledger(str(tmp_path / "ledger"))
        if charge.charge_id.startswith("spark:idle:")
    ]
    assert sum(hours) == pytest.approx(3.6 * len(hours) - 0.0088)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "put  logs ="),
        ({"url": "history:18080"}, "url is not like"),
        ({"url": "http://history:18080", "token": "s3cret"}, "by https only"),
        ({"logs": ["/x"], "nobody": 1}, "nobody"),
    ],
)
def test_options_that_are_wrong_are_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HistoryError, match=said) as caught:
        SparkHistory(options)
    assert "s3cret" not in str(caught.value)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    found = settled(tmp_path, {"logs": [str(tmp_path / "nowhere")]})
    assert (found.added, len(found.incomplete)) == (0, 1)
    assert "No such file" in found.incomplete[0]


def test_what_an_ended_application_does_not_know_is_gone(tmp_path: Path) -> None:
    written(tmp_path / APPLICATION, whole(1, 1))
    history = SparkHistory({"logs": [str(tmp_path)]})
    history.pending = (f"{APPLICATION}/sql/0", f"{APPLICATION}/sql/77", "app-other/sql/1")
    found: Iterator[Any] = history.read(BEGUN, BEGUN + timedelta(hours=1))
    assert len(list(found)) == 2
    assert list(history.lost) == [f"{APPLICATION}/sql/77"]


def test_who_watches_is_told_how_much_of_a_log_is_read(tmp_path: Path, logs: Path) -> None:
    path = written(logs / APPLICATION, whole(20, 30))
    history = SparkHistory({"logs": [str(logs)]})
    history.everything = True
    told: list[tuple[str, int, int | None]] = []

    def watch(what: str, done: int, total: int | None) -> None:
        told.append((what, done, total))

    history.progress = watch
    os.utime(path, (START / 1000 + 60, START / 1000 + 60))
    assert len(list(history.read(BEGUN, BEGUN + timedelta(hours=1)))) == 21
    assert told[-1] == ("reading event logs (bytes)", path.stat().st_size, path.stat().st_size)
