"""OTLP messages are what OpenTelemetry's own encoder would make of the same spans."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from costinsights import __version__, semconv
from costinsights.exporter import ExporterUnavailable
from costinsights.records import ErrorInfo, PriceInfo, Resource, StatementInfo
from costinsights.testing import sample_charges
from costinsights_exporters import _otlp_doors, _otlp_messages
from costinsights_exporters._otlp_messages import Messages
from costinsights_exporters.otlp import OTLPExporter, OTLPOptions
from tests.servers.otlp_sink import read_logs, read_traces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.records import Charge

PARENT = "b7ad6b7169203331"


def resource(charge: Charge) -> Mapping[str, semconv.Value]:
    return {"service.name": charge.service, "host.name": charge.host, "process.pid": charge.pid}


def encoded(charges: list[Charge]) -> bytes:
    [(within, request)] = Messages(resource).traces(charges)
    assert within == charges
    return request


def spans_of(request: Any) -> list[tuple[Any, ...]]:
    """Flatten a request: each span's resource, scope and fields, attributes in order of name.

    The stock encoder leaves the trace flags out, and writes a status that says nothing.
    """
    found: list[tuple[Any, ...]] = []
    for group in request.resource_spans:
        of = sorted(pair.SerializeToString() for pair in group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                attributes = sorted(pair.SerializeToString() for pair in span.attributes)
                del span.attributes[:]
                span.flags &= ~0xFF
                if not span.status.code:
                    span.ClearField("status")
                found.append((of, scoped.scope.name, span.SerializeToString(), attributes))
    return sorted(found)


words = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"),
    min_size=1,
    max_size=20,
)
optional_words = st.none() | words
hex16 = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
hex32 = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
usage = st.dictionaries(
    words, st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | words, max_size=4
)


def one_charge(**fields: Any) -> Charge:
    return sample_charges(1, **fields)[0]


charges = st.builds(
    one_charge,
    charge_id=words,
    system=words,
    resource=st.builds(Resource, optional_words, st.none() | st.integers(0, 65535), optional_words),
    operation=words,
    statement=st.none() | st.builds(StatementInfo, words, words, words),
    usage=usage,
    rows=st.none() | st.integers(0, 2**62),
    amount=st.none() | st.decimals(allow_nan=False, allow_infinity=False).map(str),
    currency=st.sampled_from(["USD", "EUR", None]),
    price=st.none() | st.builds(PriceInfo, words, words, words, words, words, words),
    attribution=st.dictionaries(words, words, max_size=4),
    tag=optional_words,
    vendor_id=optional_words,
    trace_id=hex32,
    span_id=hex16,
    parent_span_id=st.none() | hex16,
    trace_flags=st.integers(0, 255),
    error=st.none() | st.builds(ErrorInfo, words, optional_words),
    partial=st.booleans(),
    service=st.sampled_from(["shop", "billing"]),
    pid=st.sampled_from([1, 2]),
    instrumentor=st.sampled_from(["psycopg", "pymysql"]),
)


@given(st.lists(charges, min_size=1, max_size=6))
def test_spans_are_what_the_stock_encoder_makes_of_them(batch: list[Charge]) -> None:
    ours = ExportTraceServiceRequest.FromString(encoded(batch))
    stock = encode_spans([_otlp_doors.readable(charge) for charge in batch])
    assert spans_of(ours) == spans_of(stock)


@given(st.lists(charges, min_size=1, max_size=6))
def test_keeping_fragments_changes_nothing(batch: list[Charge]) -> None:
    messages = Messages(resource)
    first = [request for _, request in messages.traces(batch)]
    assert [request for _, request in messages.traces(batch)] == first


def test_a_span_says_all_that_a_charge_does() -> None:
    [charge] = sample_charges(
        parent_span_id=PARENT,
        error=ErrorInfo("psycopg.errors.UndefinedTable", "42P01"),
        usage={"time_ns": 5, "batch_size": 3, "capacity_seconds": "0.1", "ratio": 0.5},
        partial=True,
        vendor_id="q-17",
        tag="t",
    )
    [span] = read_traces(encoded([charge]))
    assert span.resource == {"service.name": "shop", "host.name": "host", "process.pid": 1}
    assert span.scope == "costinsights.psycopg"
    assert span.attributes == {
        "db.system.name": "postgresql",
        "server.address": "db.example",
        "server.port": 5432,
        "db.namespace": "shop",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT orders",
        "db.query.text": "SELECT * FROM orders WHERE id = ?",
        "db.operation.batch.size": 3,
        "db.response.returned_rows": 12,
        "db.response.status_code": "42P01",
        "error.type": "psycopg.errors.UndefinedTable",
        "costinsights.query.fingerprint": "0123456789abcdef",
        "costinsights.query.id": "q-17",
        "costinsights.tag": "t",
        "costinsights.partial": True,
        "costinsights.charge_id": charge.charge_id,
        "costinsights.cost.amount": 3.9e-09,
        "costinsights.cost.amount_exact": "0.0000000039",
        "costinsights.cost.currency": "USD",
        "costinsights.cost.quality": "estimated",
        "costinsights.price.key": "example.database.hour",
        "costinsights.price.book": "1",
        "costinsights.usage.time_ns": 5,
        "costinsights.usage.batch_size": 3,
        "costinsights.usage.capacity_seconds": "0.1",
        "costinsights.usage.ratio": 0.5,
        "costinsights.attribution.asset": "orders",
        "costinsights.attribution.team": "growth",
        "costinsights.attribution.rule": "scope",
    }
    message = span.message
    assert message.name == "SELECT orders"
    assert message.kind == message.SPAN_KIND_CLIENT
    assert message.trace_id.hex() == charge.trace_id
    assert message.span_id.hex() == charge.span_id
    assert message.parent_span_id.hex() == PARENT
    assert message.end_time_unix_nano - message.start_time_unix_nano == charge.duration_ns
    assert (message.status.code, message.status.message) == (
        message.status.STATUS_CODE_ERROR,
        "psycopg.errors.UndefinedTable",
    )


def test_an_unknown_price_is_no_amount_and_says_so() -> None:
    [charge] = sample_charges(amount=None, currency=None, price=None, basis="unknown")
    [span] = read_traces(encoded([charge]))
    assert span.attributes["costinsights.cost.quality"] == "unknown"
    assert not [name for name in span.attributes if "amount" in name or "currency" in name]


def test_a_batch_of_one_is_none() -> None:
    [span] = read_traces(encoded(sample_charges(usage={"batch_size": 1})))
    assert "db.operation.batch.size" not in span.attributes


def test_whole_numbers_beyond_64_bits_go_out_as_text() -> None:
    [span] = read_traces(encoded(sample_charges(usage={"bytes": 2**64, "less": -(2**63)})))
    assert span.attributes["costinsights.usage.bytes"] == str(2**64)
    assert span.attributes["costinsights.usage.less"] == -(2**63)


def test_what_is_no_character_does_not_spoil_the_message() -> None:
    [span] = read_traces(encoded(sample_charges(attribution={"a\ud800": "b\udfff"})))
    assert span.attributes["costinsights.attribution.a?"] == "b?"


def test_a_request_stays_below_what_servers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_otlp_messages, "MAX_REQUEST", 5000)
    batch = sample_charges(40)
    requests = list(Messages(resource).traces(batch))
    assert [charge for within, _ in requests for charge in within] == batch
    assert 1 < len(requests) < 40
    assert max(len(request) for _, request in requests) < 5500


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_otlp_messages, "MAX_KEPT_BYTES", 50_000)
    messages = Messages(resource)
    for number in range(200):
        statement = StatementInfo(str(number), "SELECT", "x" * 5000)
        [span] = read_traces(next(iter(messages.traces(sample_charges(statement=statement))))[1])
        assert span.attributes["costinsights.query.fingerprint"] == str(number)
        kept: dict[object, bytes] = vars(messages)["_kept"]
        assert sum(map(len, kept.values())) <= 60_000


def test_a_later_figure_is_a_log_record_with_the_spans_ids() -> None:
    [charge] = sample_charges(revision=2, rows=40, parent_span_id=PARENT)
    [(_, request)] = Messages(resource).logs([charge])
    [log] = read_logs(request)
    assert log.message.event_name == semconv.REVISED
    assert log.message.trace_id.hex() == charge.trace_id
    assert log.message.span_id.hex() == charge.span_id
    assert log.message.flags == 1
    assert (
        log.message.severity_number
        == log.message.DESCRIPTOR.fields_by_name["severity_number"]
        .enum_type.values_by_name["SEVERITY_NUMBER_INFO"]
        .number
    )
    assert log.message.body.string_value == "later figures for SELECT orders"
    assert log.scope == "costinsights.psycopg"
    assert log.resource["service.name"] == "shop"
    assert log.attributes["costinsights.revision"] == 2
    assert log.attributes["db.response.returned_rows"] == 40
    assert log.attributes["costinsights.charge_id"] == charge.charge_id


@pytest.mark.parametrize(
    ("moment", "nanoseconds"),
    [
        ("1970-01-01T00:00:00.000000Z", 0),
        ("2026-11-22T20:58:54.123456Z", 1_795_381_134_123_456_000),
        ("2038-01-19T03:14:08.000001Z", 2**31 * 10**9 + 1000),
    ],
)
def test_times_of_day_are_utc(moment: str, nanoseconds: int) -> None:
    assert semconv.epoch_ns(moment) == nanoseconds


# --- the exporter's own settings ----------------------------------------------------------------


def sent_resource(charge: Charge) -> Mapping[str, semconv.Value]:
    messages: Messages = vars(OTLPExporter())["_messages"]
    [(_, request)] = messages.traces([charge])
    [span] = read_traces(request)
    return span.resource


def test_the_resource_is_that_of_the_process_that_made_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,a=b%20c")
    [charge] = sample_charges(service="shop", host="web-7", pid=4711)
    assert sent_resource(charge) == {
        "service.name": "shop",
        "host.name": "web-7",
        "process.pid": 4711,
        "deployment.environment.name": "test",
        "a": "b c",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "costinsights",
        "telemetry.sdk.version": __version__,
    }


def test_a_service_without_a_name_gets_opentelemetrys(monkeypatch: pytest.MonkeyPatch) -> None:
    [charge] = sample_charges(service="")
    assert sent_resource(charge)["service.name"] == "unknown_service"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-environment")
    assert sent_resource(charge)["service.name"] == "from-environment"


@pytest.mark.parametrize("protocol", ["http/json", "carrier pigeon"])
def test_a_protocol_that_we_do_not_speak_is_said(protocol: str) -> None:
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    with pytest.raises(ExporterUnavailable, match="is not one of http/protobuf and grpc"):
        OTLPExporter().export(sample_charges())


def test_a_setting_that_the_stock_exporter_refuses_is_said() -> None:
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
    os.environ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"] = "lzma"
    with pytest.raises(ExporterUnavailable, match="lzma"):
        OTLPExporter().export(sample_charges())


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_missing_extra_names_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, protocol: Any
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name="opentelemetry.exporter")

    monkeypatch.setattr(_otlp_doors, "resolve_name", absent)
    with pytest.raises(ExporterUnavailable, match=r"pip install 'costinsights\[otlp\]'"):
        OTLPExporter(OTLPOptions(protocol=protocol)).export(sample_charges())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-7", 0.0),
        ("99999999", 99_999_999.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert _otlp_doors.retry_after_seconds(header) == seconds
