"""What machines of a cluster are billed for: the time of each, and prices on the spot market."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from costinsights.settlement.aws_emr_hours import Machine, slices
from costinsights.settlement.aws_emr_spot import prices_in
from tests.servers import emr_fixtures
from tests.servers.aws_emr import EMR, Instance
from tests.servers.aws_server import AWSServer, Refusal
from tests.servers.emr_runs import (
    HOUR,
    amount_of,
    latest,
    launch,
    near,
    settled,
)

if TYPE_CHECKING:
    from pathlib import Path


environment, server = emr_fixtures.environment, emr_fixtures.server
emr, client = emr_fixtures.emr, emr_fixtures.client


def test_spot_prices_of_ec2s_own_history(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    """moto's history has one price: 0.00001 USD an hour, since 2006."""
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    cluster.instances = [Instance("r5.4xlarge", 0, market="SPOT") for _ in range(2)]
    cluster.end(HOUR)
    options = {"spot_history": True}
    denied = Refusal("UnauthorizedOperation", status=403)
    server.refuse("ec2", "POST /", denied)
    report = settled("aws.emr", server, tmp_path, options=options, dry_run=True)
    assert "spot prices" in report.incomplete[0]
    report = settled("aws.emr", server, tmp_path, options=options)
    assert (report.unpriced, report.incomplete) == ({}, [])
    assert len(server.asked("ec2")) == 1
    charge = latest(tmp_path)[cluster.steps[0].id]
    assert near(amount_of(charge), Decimal("0.504") + Decimal("0.00002"))
    assert charge.price is not None
    assert "ec2:DescribeSpotPriceHistory" in charge.price.source


# --- the hours of a fleet --------------------------------------------------------------------------

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def test_a_spot_price_is_the_average_of_its_time() -> None:
    rows: list[dict[str, Any]] = [
        {"Timestamp": NOON + timedelta(hours=1), "SpotPrice": "0.40"},
        {"Timestamp": NOON, "SpotPrice": "0.20"},
        {"Timestamp": NOON, "SpotPrice": "much"},
        {"Timestamp": "then", "SpotPrice": "0.10"},
        {"Timestamp": NOON, "SpotPrice": "9", "AvailabilityZone": "us-west-2b"},
    ]
    found = prices_in(
        [{"InstanceType": "r5", "AvailabilityZone": "us-west-2a", **row} for row in rows],
        "us-west-2a",
    )["r5"]
    hour = timedelta(hours=1)
    assert found.over(NOON, NOON + hour) == Decimal("0.20")
    assert found.over(NOON + hour / 2, NOON + 2 * hour) == Decimal("0.50") / Decimal("1.5")
    assert found.over(NOON + 5 * hour, NOON + 6 * hour) == Decimal("0.40")
    assert found.over(NOON - hour, NOON) is None
    assert found.over(NOON, NOON) is None


EDGE = st.integers(0, 5 * HOUR * 10).map(lambda tenths: NOON + timedelta(seconds=tenths / 10))
MACHINE = st.tuples(EDGE, st.one_of(st.none(), EDGE), st.sampled_from(["r5", "m5"])).map(
    lambda found: Machine(
        found[2], "on_demand", found[0], None if found[1] is None else max(found[0], found[1])
    )
)


@given(st.lists(MACHINE, max_size=6), st.integers(0, 6))
def test_slices_are_the_time_of_the_machines_however_they_are_read(
    machines: list[Machine], cut: int
) -> None:
    until, middle = NOON + timedelta(hours=6), NOON + timedelta(hours=cut)
    found = list(slices(machines, NOON, until))
    assert found == [*slices(machines, NOON, middle), *slices(machines, middle, until)]
    for one, following in pairwise(found):
        assert one.started_at < one.ended_at <= following.started_at
    for kind in ("r5", "m5"):
        billed = timedelta(0)
        for machine in machines:
            if machine.type == kind:
                ran = (machine.ended_at or until) - machine.started_at
                whole = timedelta(seconds=max(60, -(-ran // timedelta(seconds=1))))
                billed += ran if machine.ended_at is None else whole
        assert (
            sum(
                (one.used.get((kind, "on_demand"), timedelta(0)) for one in found),
                start=timedelta(0),
            )
            == billed
        )
