"""Trips: put together by the card's counter, whatever the order and the day on which records come."""

import itertools
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.purse.trips import fold_trips
from terminal_sim.records import Phase
from tests.helpers.offline import Ride, pan_of, upload
from tests.unit.purse.conftest import Office

pytestmark = pytest.mark.server

ENTRY, EXIT, TOP = Phase.ENTRY, Phase.EXIT, Phase.SUPPLEMENT
#   one letter per record: what it is; the trips that come of them, first counter to last, in order
CASES = [
    # phase, station, entry station, fen, in order of the counter            trips
    ([(ENTRY, "01", "00", 0), (EXIT, "05", "01", 300)], [(0, 1, "COMPLETE", 300)]),
    ([(ENTRY, "01", "00", 0)], [(0, None, "OPEN", 0)]),
    ([(EXIT, "05", "01", 300)], [(None, 0, "OPEN", 300)]),
    ([(TOP, "05", "00", 900)], [(None, 0, "INCOMPLETE", 900)]),
    ([(ENTRY, "01", "00", 0), (TOP, "05", "01", 900)], [(0, 1, "INCOMPLETE", 900)]),
    (
        [(ENTRY, "01", "00", 0), (TOP, "02", "01", 900), (ENTRY, "02", "00", 0), (EXIT, "03", "02", 200)],
        [(0, 1, "INCOMPLETE", 900), (2, 3, "COMPLETE", 200)],
    ),
    ([(ENTRY, "01", "00", 0), (ENTRY, "02", "00", 0)], [(0, None, "OPEN", 0), (1, None, "OPEN", 0)]),
    # An exit from elsewhere is of another trip, whose entry has not come.
    ([(ENTRY, "01", "00", 0), (EXIT, "05", "04", 300)], [(0, None, "OPEN", 0), (None, 1, "OPEN", 300)]),
    # A bus between entry and exit is a ride of its own.
    ([(ENTRY, "01", "00", 0), (Phase.NONE, "00", "00", 200), (EXIT, "05", "01", 300)], [(0, 2, "COMPLETE", 300)]),
]  # fmt: skip


def records(card: int, steps: list[Any]) -> list[bytes]:
    made, balance_fen = [], 100_000
    for atc, (phase, station, entered, fen) in enumerate(steps):
        made.append(
            Ride(
                card=card, atc=atc, amount_fen=fen, balance_fen=balance_fen, phase=phase,
                station=f"01{station}", entry_station=f"01{entered}",
            ).pack()
        )  # fmt: skip
        balance_fen -= fen
    return made


async def trips(pg: AsyncConnection[Any], card: int) -> list[Any]:
    cursor = await pg.execute(
        "SELECT entry_atc, end_atc, state, amount_fen FROM trip WHERE card = card_key(%s)"
        " ORDER BY coalesce(entry_atc, end_atc)",
        (pan_of(card),),
    )
    return await cursor.fetchall()


async def test_entries_belong_to_the_next_step_of_their_card(
    office: Office, pg: AsyncConnection[Any]
) -> None:
    for card, (steps, _) in enumerate(CASES, 1):
        await office.take(upload(*records(card, steps)))
    await fold_trips(pg)
    assert [await trips(pg, card) for card, _ in enumerate(CASES, 1)] == [expected for _, expected in CASES]
    assert await fold_trips(pg) == 0


async def test_the_order_of_arrival_changes_nothing(office: Office, pg: AsyncConnection[Any]) -> None:
    """Every order of four records, each in an upload of its own and folded at once: one card for each order."""
    steps, expected = CASES[5]
    orders = list(itertools.permutations(range(len(steps))))[::2]
    for card, order in enumerate(orders, 1):
        made = records(card, steps)
        for place in order:
            await office.take(upload(made[place]))
            if card % 3 == 0:
                await fold_trips(pg)
    await fold_trips(pg)
    assert [await trips(pg, card) for card, _ in enumerate(orders, 1)] == [expected] * len(orders)


async def test_what_is_not_accepted_is_no_step(office: Office, pg: AsyncConnection[Any]) -> None:
    (entry,) = records(1, CASES[1][0])
    await office.take(upload(entry, entry, Ride(card=2, phase=ENTRY, tac=b"wrng").pack()))
    assert await fold_trips(pg) == 1
