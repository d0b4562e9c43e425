"""Compaction changes what lies where, and no figure: at no moment, whatever happens."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costinsights import positions
from costinsights.ledger import compact as compaction
from costinsights.ledger import live, manifest
from costinsights.ledger.compact import Busy, Compacted, compact
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.store import Period, open_store
from costinsights.ledger.verify import verify
from costinsights.ledger.writer import LedgerError
from costinsights.records import BASIS_RANK, Basis, Charge, Resource
from tests.ledgers import DAY, HOUR, NOON, UNIT, Program, aged, files_below, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def press(ledger: Path, **options: Any) -> Compacted:
    aged(ledger)
    return compact(str(ledger), **options)


def counted(ledger: Path) -> dict[str, Charge]:
    """Every charge as it counts, by id; all sums agree with it."""
    with open_store(str(ledger)) as store:
        found = list(store.charges())
        with localcontext() as context:
            context.prec = 60
            total = sum((Decimal(c.amount) for c in found if c.amount), Decimal(0))
        for way in (True, False):
            store.post(Period(), totals=way)
            row = store.connection.execute(
                "SELECT sum(calls), sum(amount) FROM postings"
            ).fetchone()
            assert row is not None
            assert (row[0] or 0, row[1] or Decimal(0)) == (len(found), total)
    assert len({charge.charge_id for charge in found}) == len(found)
    return {charge.charge_id: charge for charge in found}


def history(ledger: Path) -> list[Charge]:
    with open_store(str(ledger)) as store:
        found = list(store.charges(history=True))
    return sorted(
        found, key=lambda charge: (charge.charge_id, charge.revision, charge.amount or "")
    )


def totals(ledger: Path) -> tuple[int, Decimal | None]:
    with open_store(str(ledger)) as store:
        store.post(Period())
        row = store.connection.execute("SELECT sum(calls), sum(amount) FROM postings").fetchone()
    assert row is not None
    return int(row[0] or 0), row[1]


def best(charges: list[Charge]) -> dict[str, Charge]:
    """What should count, worked out plainly."""
    found: dict[str, Charge] = {}
    for charge in charges:
        other = found.get(charge.charge_id)
        if other is None or _order(charge) > _order(other):
            found[charge.charge_id] = charge
    return found


def _order(charge: Charge) -> tuple[int, int, str]:
    return BASIS_RANK[charge.basis], charge.revision, charge.ended_at


# --- nothing changes ------------------------------------------------------------------------------


def test_every_field_survives(ledger: Path) -> None:
    program = Program(ledger)
    trace = "0af7651916cd43dd8448eb211c80319c"
    program.call(
        at=NOON + 123_456_789,
        labels={
            "asset": "o'rders",
            "partition": "p",
            "job": "j",
            "run": "r",
            "team": "t",
            "env": "é",
        },
        error=("psycopg.errors.UndefinedTable", "42P01"),
        statement="SELECT 'x'",
        text='SELECT ?\nFROM "t"',
        rows=7,
        u={"batch_size": 3, "ratio": 0.1, "big": 2**70, "word": 'a"b', "time_ns": 1},
        o="BATCH INSERT",
        x=f"00-{trace}-b7ad6b7169203331-a7",
        l=True,
        y=9_000_000_000,
        g="tag-1",
        i="vendor-1",
        f=123_456_789_012_345_678,
        resource=Resource("db.example", 5439, "dev", "aws.rds", "eu-central-1"),
    )
    program.call(amount=None, statement=None, rows=None, error=("ValueError", None))
    program.call(amount="12345678901234567890123.123456789012345")
    program.call(amount=-5)
    program.close()
    before = [*read_ledger(str(ledger))]
    assert history(ledger) == before  # SQL on segments says what the reader says
    done = press(ledger)
    assert (done.segments, done.entries, done.charges) == (1, 4, 4)
    assert segments_of(ledger) == []
    assert history(ledger) == before
    assert counted(ledger) == {charge.charge_id: charge for charge in before}


amounts = st.none() | st.integers(-(10**21), 10**21)
bases: st.SearchStrategy[Basis | None] = st.sampled_from([None, "metered", "allocated", "billed"])


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # which charge
            st.integers(0, 3),  # its revision
            amounts,
            bases,
            st.integers(0, 3 * DAY),
            st.booleans(),  # a process of its own, under the whole charge id
            st.booleans(),  # compact afterwards
        ),
        min_size=1,
        max_size=12,
    )
)
def test_each_charge_counts_once_whatever_is_compacted_when(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[Any, ...]]
) -> None:
    """Revisions in any order, before and after their originals, across any compactions."""
    ledger = tmp_path_factory.mktemp("ledger")
    first = Program(ledger)
    first.call(number=100, amount=1)  # so that there is a ledger
    first.close()
    process = os.urandom(10).hex()
    expected = [*read_ledger(str(ledger))]
    seen: set[tuple[object, ...]] = set()
    for number, revision, amount, basis, offset, foreign, squeeze in entries:
        rank = basis if amount is not None else None
        # The same revision is never written twice with different figures.
        # And a process writes the first entry of a charge once.
        first_entry = not foreign and revision == 0
        key = (number,) if first_entry else (number, revision, rank, amount is None)
        if key in seen:
            continue
        seen.add(key)
        program = Program(ledger)
        if not foreign and revision == 0:
            program.process = process
            program.writer.process = process
            program.writer.segment = len(seen) + 1
        program.call(
            number=number,
            charge_id=None if program.process == process else f"{process}-{number}",
            revision=revision,
            amount=amount,
            basis=rank,
            at=NOON + offset,
            labels={"asset": f"a{number}"},
        )
        program.close()
        known = {(c.charge_id, c.revision, c.basis, c.amount) for c in expected}
        expected += [
            charge
            for charge in read_ledger(str(ledger))
            if (charge.charge_id, charge.revision, charge.basis, charge.amount) not in known
        ]
        if squeeze:
            press(ledger)
    for _ in range(2):
        assert counted(ledger) == best(expected)
        press(ledger)
    assert verify(str(ledger)).sound


def test_files_of_before_a_column_came_are_read_as_if_it_were_unknown(ledger: Path) -> None:
    """And together with later ones, also where a later figure takes the earlier one back."""
    program = Program(ledger)
    old = program.call(labels={"asset": "a"})
    program.close()
    press(ledger)
    (file,) = files_below(ledger, "parquet", "charges")
    before = file.with_name("before.parquet")
    duckdb.sql(f"COPY (SELECT * EXCLUDE (region) FROM '{file}') TO '{before}'")
    os.replace(before, file)
    listed = manifest.load(str(ledger))
    listed.files = [
        msgspec.structs.replace(found, later=0, size=file.stat().st_size)
        if found.kind == "charges"
        else found
        for found in listed.files
    ]
    manifest.publish(str(ledger), listed)
    assert verify(str(ledger)).sound
    assert counted(ledger)[old].resource.region is None
    later = Program(ledger)
    new = later.call(resource=Resource("db.example", region="eu-central-1"))
    later.call(charge_id=old, revision=1, amount=3 * UNIT, basis="metered")
    later.close()
    for _ in range(2):
        found = counted(ledger)
        assert {id_: charge.resource.region for id_, charge in found.items()} == {
            old: None,
            new: "eu-central-1",
        }
        assert found[old].amount == "3.000000000000000"
        press(ledger)
    assert verify(str(ledger)).sound


def test_a_later_figure_for_a_compacted_charge(ledger: Path) -> None:
    program = Program(ledger)
    charge = program.call(amount=5 * UNIT, labels={"asset": "a"})
    other = program.call(amount=1 * UNIT, labels={"asset": "a"})
    program.close()
    press(ledger)
    settling = Program(ledger)
    settling.call(
        charge_id=charge, revision=1, amount=3 * UNIT, basis="metered", labels={"asset": "b"}
    )
    assert counted(ledger)[charge].amount == "3.000000000000000"
    assert totals(ledger) == (2, Decimal(4))
    settling.close()
    press(ledger)
    assert totals(ledger) == (2, Decimal(4))
    assert set(counted(ledger)) == {charge, other}
    assert [entry.amount for entry in history(ledger) if entry.charge_id == charge] == [
        "5.000000000000000",
        "3.000000000000000",
    ]
    with open_store(str(ledger)) as store:
        store.post(Period())
        by_asset = store.connection.execute(
            "SELECT asset, sum(calls), sum(amount) FROM postings GROUP BY asset ORDER BY asset"
        ).fetchall()
    assert by_asset == [("a", 1, Decimal(1)), ("b", 1, Decimal(3))]


def test_a_worse_figure_that_comes_late_changes_nothing(ledger: Path) -> None:
    program = Program(ledger)
    charge = program.call(amount=5 * UNIT, basis="billed")
    program.close()
    press(ledger)
    late = Program(ledger)
    late.call(charge_id=charge, revision=7, amount=9 * UNIT, basis="estimated")
    late.close()
    for _ in range(2):
        assert totals(ledger) == (1, Decimal(5))
        press(ledger)
    assert len(history(ledger)) == 2


def test_importing_a_bill_twice_changes_nothing(ledger: Path) -> None:
    for _ in range(3):
        puller = Program(ledger)
        puller.call(charge_id="aws-2026-10-line-1", amount=7 * UNIT, basis="billed")
        puller.close()
        assert totals(ledger) == (1, Decimal(7))
        press(ledger)
        assert totals(ledger) == (1, Decimal(7))


def test_a_price_that_is_unknown_stays_unknown(ledger: Path) -> None:
    program = Program(ledger)
    for _ in range(20):
        program.call(amount=None)
    program.call(amount=UNIT)
    program.close()
    press(ledger)
    with open_store(str(ledger)) as store:
        store.post(Period())
        rows = store.connection.execute(
            "SELECT currency, basis, sum(calls), sum(amount) FROM postings GROUP BY ALL ORDER BY 3"
        ).fetchall()
    assert rows == [("USD", "estimated", 1, Decimal(1)), (None, "unknown", 20, None)]


def test_amounts_are_never_rounded(ledger: Path) -> None:
    program = Program(ledger)
    program.call(amount=UNIT)
    program.call(amount="0.1234567890123456")
    program.close()
    with pytest.raises(LedgerError, match=r"0\.1234567890123456.*is not rounded"):
        press(ledger)
    assert len(segments_of(ledger)) == 1
    assert files_below(ledger, "parquet") == []


@pytest.mark.parametrize("text", ["0.10000000000000000000", "99999999999999999999999"])
def test_whatever_is_exact_fits(ledger: Path, text: str) -> None:
    program = Program(ledger)
    program.call(amount=text)
    program.close()
    press(ledger)
    (charge,) = counted(ledger).values()
    assert Decimal(charge.amount or "") == Decimal(text)


# --- what is left alone ---------------------------------------------------------------------------


def test_a_living_programs_segment_stays(ledger: Path) -> None:
    program = Program(ledger)
    program.call()
    done = press(ledger)
    assert (done.segments, done.kept.live) == (0, 1)
    program.call()
    program.close()
    assert press(ledger).charges == 2


def test_a_segment_that_was_just_begun_stays(ledger: Path) -> None:
    """Between opening its file and locking it, a writer looks dead for a moment."""
    program = Program(ledger)
    program.call()
    program.close()
    done = compact(str(ledger))
    assert (done.segments, done.kept.live) == (0, 1)


def test_a_segment_that_an_exporter_has_not_finished_stays(ledger: Path) -> None:
    program = Program(ledger)
    program.call()
    program.close()
    (path,) = segments_of(ledger)
    name = positions.segment_name(path)
    positions.register(str(ledger), "otlp", name, "shop")
    positions.register(str(ledger), "jsonl", name, "shop")
    positions.finish(str(ledger), "jsonl", name)
    done = press(ledger)
    assert (done.segments, done.kept.owed) == (0, 1)
    positions.finish(str(ledger), "otlp", name)
    assert press(ledger).segments == 1
    assert files_below(ledger, "exporters") == []  # nothing is noted about what is no more


def test_two_compactions_do_not_work_at_once(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(ledger)
    program.call()
    program.close()
    consume = compaction._consume  # pyright: ignore[reportPrivateUsage]

    def twice(*args: Any) -> Compacted:
        with pytest.raises(Busy):
            compact(str(ledger))
        return consume(*args)

    monkeypatch.setattr(compaction, "_consume", twice)
    assert press(ledger).charges == 1


def test_doing_it_again_changes_nothing(ledger: Path) -> None:
    program = Program(ledger)
    program.call()
    program.close()
    press(ledger)
    before = {path: path.read_bytes() for path in files_below(ledger)}
    assert compact(str(ledger)) == Compacted()
    assert {path: path.read_bytes() for path in files_below(ledger)} == before


def test_no_ledger_is_no_mistake(tmp_path: Path) -> None:
    assert compact(str(tmp_path / "none")) == Compacted()
    assert not (tmp_path / "none").exists()


# --- torn and damaged -----------------------------------------------------------------------------


def test_torn_lines_are_counted_and_set_aside(ledger: Path) -> None:
    program = Program(ledger)
    made = [program.call(labels={"asset": f"a{n}"}) for n in range(5)]
    program.close()
    (path,) = segments_of(ledger)
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    places = [n for n, line in enumerate(lines) if b'"k":"e"' in line]
    lines[places[1]] = lines[places[1]][:30] + b"\n"
    lines[places[3] - 1] = b"junk" + lines[places[3] - 1]  # the definition of what comes next
    with open(path, "wb") as file:
        file.writelines(lines[:-1])
        file.write(lines[-1][:-9])
    offsets = [sum(map(len, lines[:n])) for n in (places[1], places[3] - 1, places[3], places[4])]
    found = verify(str(ledger))
    assert found.sound
    assert [line.offset for line in found.torn] == offsets
    assert {line.reason for line in found.torn} == {"torn", "its definition was torn"}
    assert (found.entries, found.charges) == (2, 2)
    with open(found.torn[0].copy, "rb") as file:
        assert file.read() == lines[places[1]].rstrip(b"\n")
    done = press(ledger)
    assert (done.torn, done.charges) == (4, 2)
    assert set(counted(ledger)) == {made[0], made[2]}
    assert verify(str(ledger)).torn_before == 4
    copies = files_below(ledger, "aside")
    assert len(copies) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o600}


def test_a_segment_without_its_first_line_is_set_aside(ledger: Path) -> None:
    program = Program(ledger)
    program.call()
    program.call()
    program.close()
    (path,) = segments_of(ledger)
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    with open(path, "wb") as file:
        file.writelines(lines[1:])
    found = verify(str(ledger))
    assert (found.entries, len(found.torn)) == (0, 2)
    assert press(ledger).torn == 2


def test_a_sealed_line_that_is_no_entry_is_set_aside(ledger: Path) -> None:
    from costinsights.ledger.seal import seal

    program = Program(ledger)
    kept = program.call()
    program.close()
    (path,) = segments_of(ledger)
    with open(path, "ab") as file:
        file.write(seal(b'{"k":"e","n":"two","t":1,"d":1,"r":1,"a":2}'))
        file.write(seal(b'{"k":"?"}'))
    found = verify(str(ledger))
    assert [line.reason for line in found.torn] == ["not understood"] * 2
    assert set(counted(ledger)) == {kept}


def test_a_segment_of_a_newer_version_is_left_to_it(ledger: Path) -> None:
    import msgspec

    from costinsights.ledger.seal import seal
    from costinsights.records import HeaderLine

    program = Program(ledger)
    program.call()
    program.close()
    header = HeaderLine(2, "f" * 20, "shop", "host", 1, NOON, "9.0")
    newer = ledger / "segments" / f"{'f' * 20}-1.jsonl"
    newer.write_bytes(seal(msgspec.json.encode(header)))
    with pytest.raises(LedgerError, match=r"format 2.*update costinsights"):
        press(ledger)
    assert len(segments_of(ledger)) == 2


def test_what_writers_lost_is_remembered(ledger: Path) -> None:
    import msgspec

    from costinsights.ledger.seal import seal
    from costinsights.records import LossLine

    program = Program(ledger)
    program.call()
    program.close()
    (path,) = segments_of(ledger)
    with open(path, "ab") as file:
        file.write(seal(msgspec.json.encode(LossLine(NOON, {"disk": 12}))))
    for _ in range(2):
        assert verify(str(ledger)).lost == {"disk": 12}
        press(ledger)


@pytest.mark.parametrize("kind", ["charges", "totals"])
def test_a_damaged_file_is_found(ledger: Path, kind: str) -> None:
    program = Program(ledger)
    for _ in range(50):
        program.call()
    program.close()
    press(ledger)
    assert verify(str(ledger)).sound
    (path,) = files_below(ledger, "parquet", kind)
    whole = path.read_bytes()
    path.unlink()
    assert "is missing" in verify(str(ledger)).damage[0]
    path.write_bytes(whole[:-10])
    assert "bytes instead of" in verify(str(ledger)).damage[0]
    path.write_bytes(whole[:-10] + bytes(10))
    assert "cannot be read" in verify(str(ledger)).damage[0]


def test_sums_that_are_not_those_of_their_rows_are_found(ledger: Path) -> None:
    program = Program(ledger)
    for _ in range(50):
        program.call()
    program.close()
    press(ledger)
    listed = manifest.load(str(ledger))
    (totals,) = files_below(ledger, "parquet", "totals")
    changed = totals.with_name("changed.parquet")
    duckdb.sql(f"COPY (SELECT * REPLACE (amount + 1 AS amount) FROM '{totals}') TO '{changed}'")
    os.replace(changed, totals)
    listed.files = [
        manifest.File(
            path=f.path, kind=f.kind, day=f.day, rows=f.rows, size=totals.stat().st_size, of=f.of
        )
        if f.kind == "totals"
        else f
        for f in listed.files
    ]
    manifest.publish(str(ledger), listed)
    assert "is not the sum of" in verify(str(ledger)).damage[0]


def test_a_damaged_manifest_is_said(ledger: Path) -> None:
    program = Program(ledger)
    program.call()
    program.close()
    press(ledger)
    path = ledger / "parquet" / "manifest.json"
    path.write_text("{")
    with pytest.raises(LedgerError, match="is damaged"):
        counted(ledger)
    path.write_text(json.dumps({"format": 2}))
    with pytest.raises(LedgerError, match="update costinsights"):
        counted(ledger)


# --- dying at any step ----------------------------------------------------------------------------

STEPS = ("write", "fsync", "open", "replace", "unlink", "mkdir", "rmdir")


def _die_at(ledger: str, step: int) -> None:
    """Compact, and be killed just before the given system call that changes the disk."""
    left = step

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))
    compact(ledger)
    os._exit(7)


@pytest.mark.slow
def test_a_compaction_killed_at_any_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    original = tmp_path / "original"
    program = Program(original)
    charge = program.call(amount=3 * UNIT)
    program.close()
    press(original)
    later = Program(original)
    later.call(charge_id=charge, revision=1, basis="metered", amount=2 * UNIT)
    for _ in range(8):
        later.call(amount=UNIT)
    later.close()
    aged(original)
    expected = counted(original)
    assert totals(original) == (9, Decimal(10))
    context = multiprocessing.get_context("fork")
    step = 0
    while True:
        ledger = tmp_path / "ledger"
        shutil.copytree(original, ledger)
        child = context.Process(target=_die_at, args=(str(ledger), step))
        child.start()
        child.join()
        assert child.exitcode in (7, -signal.SIGKILL)
        assert counted(ledger) == expected, step
        compact(str(ledger))
        assert segments_of(ledger) == []
        found = verify(str(ledger))
        assert found.sound, (step, found.damage)
        assert (found.charges, found.entries) == (9, 10), step
        named = {file.path for file in manifest.load(str(ledger)).files}
        there = {
            str(path.relative_to(ledger / "parquet"))
            for path in files_below(ledger, "parquet")
            if path.suffix == ".parquet"
        }
        assert there == named, step
        shutil.rmtree(ledger)
        if child.exitcode == 7:
            break
        step += 1
    assert step > 30


def test_a_report_while_segments_are_compacted_away(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing segments and reading them, all of them have become Parquet."""
    program = Program(ledger)
    for _ in range(5):
        program.call()
    program.close()
    aged(ledger)
    real = live.Live.load
    done: list[bool] = []

    def late(self: live.Live, segments: Any) -> None:
        if not done:
            done.append(True)
            compact(str(ledger))
        real(self, segments)

    monkeypatch.setattr(live.Live, "load", late)
    with open_store(str(ledger)) as store:
        monkeypatch.undo()
        assert len(list(store.charges())) == 5


def test_a_report_between_publication_and_deletion(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(ledger)
    program.call()
    program.close()

    def forget(*_: object) -> None:
        """As if the process died here."""

    monkeypatch.setattr(compaction, "_delete", forget)
    press(ledger)
    assert len(segments_of(ledger)) == 1
    assert len(counted(ledger)) == 1
    monkeypatch.undo()
    compact(str(ledger))
    assert segments_of(ledger) == []
    assert len(counted(ledger)) == 1


# --- days, batches, retention ---------------------------------------------------------------------


def test_a_day_is_the_utc_day_on_which_a_call_ended(ledger: Path) -> None:
    program = Program(ledger)
    midnight = NOON + 12 * HOUR
    program.call(at=midnight - 2 * 10**9, duration=10**9)
    program.call(at=midnight - 10**9, duration=10**9)  # ends at the first moment of the day
    program.close()
    press(ledger)
    days = {path.parent.name: path for path in files_below(ledger, "parquet", "charges")}
    assert set(days) == {"date=2026-11-22", "date=2026-11-23"}


def test_what_others_see_is_plain_hive_partitioned_parquet(ledger: Path) -> None:
    program = Program(ledger)
    program.call(labels={"asset": "a"})
    program.close()
    press(ledger)
    rows = duckdb.sql(
        f"SELECT CAST(date AS VARCHAR), asset, amount, calls FROM "
        f"read_parquet('{ledger}/parquet/charges/*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    assert rows == [("2026-11-22", "a", Decimal(1), 1)]
    types = duckdb.sql(f"DESCRIBE FROM '{ledger}/parquet/charges/*/*.parquet'").fetchall()
    assert ("amount", "DECIMAL(38,15)") in [row[:2] for row in types]


def test_many_segments_are_consumed_in_batches(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCH_SEGMENTS", 2)
    for number in range(5):
        program = Program(ledger)
        program.call(amount=number * UNIT)
        program.close()
    done = press(ledger)
    assert (done.segments, done.charges) == (5, 5)
    assert manifest.load(str(ledger)).generation == 3
    assert totals(ledger) == (5, Decimal(10))


def test_a_batch_that_is_larger_than_memory_is_read_in_parts(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BATCH_BYTES", 1000)
    programs = [Program(ledger) for _ in range(4)]
    for program in programs:
        for _ in range(20):
            program.call()
        program.close()
    assert totals(ledger) == (80, Decimal(80))


def test_retention_lets_old_days_go_and_counts_them(ledger: Path) -> None:
    import time

    now = time.time_ns()
    program = Program(ledger)
    for age in (0, 5, 9, 30):
        program.call(at=now - age * DAY, amount=UNIT)
    program.close()
    press(ledger)
    done = compact(str(ledger), retention_days=7)
    assert (done.expired_days, done.expired_charges) == (2, 2)
    assert totals(ledger) == (2, Decimal(2))
    assert len(files_below(ledger, "parquet", "charges")) == 2
    assert compact(str(ledger), retention_days=7).expired_days == 0
    assert manifest.load(str(ledger)).expired_charges == 2
    assert verify(str(ledger)).sound


def test_retention_takes_revisions_and_history_along(ledger: Path) -> None:
    import time

    old = time.time_ns() - 30 * DAY
    program = Program(ledger)
    charge = program.call(at=old, amount=UNIT)
    program.close()
    press(ledger)
    later = Program(ledger)
    later.call(at=old, charge_id=charge, revision=1, basis="metered", amount=2 * UNIT)
    later.close()
    press(ledger, retention_days=7)
    assert totals(ledger) == (0, None)
    assert history(ledger) == []
    assert [path.suffix for path in files_below(ledger, "parquet")] == [".json"]


def test_files_are_for_the_user_only(ledger: Path) -> None:
    program = Program(ledger)
    for _ in range(10):
        program.call()
    program.close()
    old = os.umask(0)
    try:
        press(ledger)
    finally:
        os.umask(old)
    for path in ledger.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_with_wildcards_in_its_name(tmp_path: Path) -> None:
    ledger = tmp_path / "it's [a] *?" / "ledger"
    ledger.parent.mkdir()
    program = Program(ledger)
    program.call()
    program.close()
    press(ledger)
    assert totals(ledger) == (1, Decimal(1))
    assert verify(str(ledger)).sound


def test_reading_needs_no_network_and_no_extension(ledger: Path) -> None:
    with open_store(str(ledger)) as store:
        for option in ("autoinstall_known_extensions", "autoload_known_extensions"):
            row = store.connection.execute(f"SELECT current_setting('{option}')").fetchone()
            assert row == (False,)


def test_compaction_by_another_python_is_seen(ledger: Path) -> None:
    program = Program(ledger)
    program.call()
    program.close()
    aged(ledger)
    code = "import sys; from costinsights.ledger.compact import compact; print(compact(sys.argv[1]).charges)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ledger)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert totals(ledger) == (1, Decimal(1))
