"""What the city knows of an evening in the depot before it asks the switch. No switch and no broker is needed for that."""

from collections.abc import Iterator
from datetime import date, datetime, time
from io import StringIO
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from rich.console import Console

from terminal_sim.city import summary
from terminal_sim.city.books import Books
from terminal_sim.city.day import Result
from terminal_sim.city.homecoming import (
    COPIES,
    RECORD_SERIAL,
    Rush,
    depot_copies,
    holes,
    missing_of,
    take_stock,
    trips_of,
)
from terminal_sim.city.plan import draw_city
from terminal_sim.city.street import Street
from terminal_sim.city.tally import Tally
from terminal_sim.city.transit import ACCEPTED, DAMAGED, Fleet
from terminal_sim.pos_client import Line

DAY = date(2026, 3, 2)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    fleet = Fleet(draw_city(1, 600, DAY), Random("1/fleet"), datetime.combine(DAY, time(20)))
    fleet.ride_all_day(150, lambda: None)
    return fleet


@pytest.fixture
def street(fleet: Fleet) -> Street:
    plan = draw_city(1, 600, DAY)
    return Street(plan, Books(plan, today=DAY), Tally(1), Line("127.0.0.1", 1))


def told(fleet: Fleet, street: Street) -> dict[str, Any]:
    """What the operator's commands would say if they agreed with the city."""
    missing = missing_of(fleet, street.plan.depot.terminal_id)

    def damaged(owner: str) -> Iterator[dict[str, int]]:
        for bus in fleet.buses:
            if bus.vehicle.terminal.terminal_id == owner:
                for record in bus.records:
                    if record.expected == DAMAGED and any(
                        first <= record.serial <= last
                        for first, last in missing.get((RECORD_SERIAL, owner), ())
                    ):
                        yield {"serial": record.serial}

    return {
        "missing": {
            "counters": [
                {
                    "counter": counter,
                    "owner": owner,
                    "gaps": [{"from": first, "to": last} for first, last in found],
                    "damaged": list(damaged(owner)) if counter == RECORD_SERIAL else [],
                }
                for (counter, owner), found in missing.items()
            ]
        },
        "members": [{"terminal_id": fleet.away.vehicle.terminal.terminal_id}]
        + [
            {"terminal_id": bus.vehicle.terminal.terminal_id}
            for bus in fleet.buses
            if not bus.records and bus is not fleet.away
        ],
        "lines": [trips_of(fleet)],
    }


def test_half_of_the_vehicles_come_over_mqtt_and_all_gates_are_among_them() -> None:
    for purchases in (100, 6_000):
        vehicles = draw_city(1, purchases, DAY).vehicles
        assert sum(vehicle.over_mqtt for vehicle in vehicles) == len(vehicles) // 2
        assert all(vehicle.over_mqtt for vehicle in vehicles if vehicle.gate)


def test_a_lost_record_and_a_damaged_one_are_holes_and_the_bus_that_is_away_lacks_nothing(
    fleet: Fleet,
) -> None:
    missing = missing_of(fleet, "DEPOT")
    (loser,) = [bus for bus in fleet.buses if bus.lost]
    serial = loser.lost[0].serial
    assert any(
        first <= serial <= last for first, last in missing[RECORD_SERIAL, loser.vehicle.terminal.terminal_id]
    )
    over_mqtt = [bus for bus in fleet.buses if bus.vehicle.over_mqtt]
    assert any(record.expected == DAMAGED for bus in over_mqtt for record in bus.records)
    assert fleet.away.records
    away = {fleet.away.vehicle.terminal.terminal_id, fleet.away.vehicle.psam_no}
    assert away.isdisjoint(owner for _, owner in missing)
    assert (RECORD_SERIAL, "DEPOT") not in missing


def test_only_paid_rides_are_with_the_bus_that_is_away(fleet: Fleet) -> None:
    assert {record.expected for record in fleet.away.records} <= {ACCEPTED, "11"}


def test_the_depot_reads_records_that_lie_one_behind_the_other(fleet: Fleet) -> None:
    copies = depot_copies(fleet)
    assert 1 < len(copies) <= COPIES
    assert all(later.serial == former.serial + 1 for former, later in pairwise(copies))


def test_what_is_between_the_lowest_and_the_highest_is_missing() -> None:
    assert holes(()) == holes((7,)) == holes((1, 2, 3)) == []
    assert holes((9, 1, 4, 3)) == [(2, 2), (5, 8)]


def test_an_operators_list_that_says_what_the_city_knows_is_no_fault(fleet: Fleet, street: Street) -> None:
    take_stock(street, fleet, rush := Rush(), **told(fleet, street))
    assert not street.books.faults
    assert fleet.away in rush.away
    assert rush.missing == missing_of(fleet, street.plan.depot.terminal_id)


def test_every_difference_between_the_list_and_the_city_is_told(fleet: Fleet, street: Street) -> None:
    said = told(fleet, street)
    said["missing"]["counters"][0]["gaps"].append({"from": 900, "to": 901})
    said["missing"]["counters"].append(
        {"counter": "batch_serial", "owner": "33500001", "gaps": [{"from": 2, "to": 2}], "damaged": []}
    )
    said["members"].pop()
    said["lines"].append({"complete": 1, "incomplete": 0, "open": 0})
    take_stock(street, fleet, Rush(), **said)
    assert [fault.partition(":")[0].split()[0] for fault in street.books.faults] == [
        "missing",
        "missing",
        "who",
        "trips",
    ]


def test_the_summary_tells_of_the_rush_in_a_few_lines(fleet: Fleet, street: Street) -> None:
    rush = Rush(700, 500, 2.0, batches=15, published=21, receipts_lost=1, receipts_s=[0.1, 0.2, 0.9])
    take_stock(street, fleet, rush, **told(fleet, street))
    result = Result(street.plan, street.books, street.tally, street, rush=rush)
    out = StringIO()
    summary.show(result, Console(file=out, width=200, highlight=False, markup=False))
    text = " ".join(out.getvalue().split())
    away = fleet.away.vehicle
    for part in ("600 records/s", "15 batches", f"not home: {away.terminal.terminal_id}", "trips complete"):
        assert part in text, part
    (loser,) = [bus for bus in fleet.buses if bus.lost]
    assert f"{loser.vehicle.terminal.terminal_id} #" in text
    assert summary.document(result)["depot_rush"]["records_per_s"] == 600
