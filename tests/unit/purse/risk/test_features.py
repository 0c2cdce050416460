"""Each figure says of a record what its line in the table says, on records that went through the intake."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.purse.record import crc16
from switch.purse.risk.features import FEATURES, feature_query
from switch.purse.risk.replay import SQL
from switch.purse.shadow import adjudicate, fold_purses
from terminal_sim.records import RecordKind
from tests.helpers.offline import Fetch, Ride, pan_of, upload
from tests.unit.purse.conftest import Office

pytestmark = pytest.mark.server

NOON = datetime.now(SHANGHAI).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


class Figures:
    """Asks for figures of all records, in order of arrival."""

    def __init__(self, link: AsyncConnection[Any]) -> None:
        self.link = link

    async def __call__(self, *names: str) -> list[Any]:
        days = {"first": "2000-01-01", "last": "2100-01-01", "lookback": 0}
        columns = ", ".join(f"f_{name}" for name in names)
        query = (
            f"WITH risk_scope AS ({SQL['scope_days']}), risk_feature AS ({feature_query(names)})"
            f" SELECT {columns} FROM risk_feature ORDER BY entry_no"
        )
        cursor = await self.link.execute(query.encode(), days)
        rows: Sequence[Any] = await cursor.fetchall()
        return [row[0] if len(names) == 1 else row for row in rows]


@pytest.fixture
def figures(link: AsyncConnection[Any]) -> Figures:
    return Figures(link)


async def test_how_often_and_where_a_card_rode(office: Office, figures: Figures) -> None:
    rides = [
        Ride(atc=0, amount_fen=200, when=at(0), terminal_no=1),
        Ride(atc=1, amount_fen=300, when=at(30), terminal_no=1),
        Ride(atc=2, amount_fen=400, when=at(61), terminal_no=2),
        Ride(atc=3, amount_fen=500, when=at(61 + 24 * 60), terminal_no=7),
        Ride(card=2, when=at(31), terminal_no=2),
    ]
    for ride in rides:
        await office.take(upload(ride.pack(), terminal_no=ride.terminal_no))
    assert await figures("card_rides_1h") == [1, 2, 2, 1, 1]
    assert await figures("card_rides_24h", "card_spent_24h_fen") == [
        (1, 200),
        (2, 500),
        (3, 900),
        (2, 900),
        (1, 200),
    ]
    assert await figures("minutes_since_other_reader") == [None, None, 31, 1440, None]
    assert await figures("minutes_since_other_merchant") == [None, None, None, 1440, None]
    assert await figures("minutes_since_other_line") == [None] * 5
    assert await figures("reader_rides_1h") == [1, 2, 2, 1, 1]


async def test_what_a_record_says_of_itself(office: Office, figures: Figures) -> None:
    over = bytearray(Ride(atc=0, amount_fen=900, when=at(0)).pack())
    over[73:77] = (250).to_bytes(4)
    over[79:81] = bytes.fromhex("0042")
    over[94:96] = crc16(bytes(over[:94])).to_bytes(2)
    ahead = Ride(card=3, when=datetime.now(SHANGHAI) + timedelta(hours=3))
    await office.take(
        upload(bytes(over), ahead.pack(), Ride(card=4, when=at(0), kind=RecordKind.GREY).pack())
    )
    assert await figures("ride", "result", "grey") == [(1, 10, 0), (1, 10, 0), (0, 4, 1)]
    assert await figures("over_fare_fen") == [650, 0, 0]
    assert await figures("age_days") == [pytest.approx(2, abs=1), -1, pytest.approx(2, abs=1)]
    assert (await figures("hour", "amount_fen", "balance_fen"))[0] == (12, 900, 100_000)


async def test_what_the_counters_and_the_balance_say(
    office: Office, link: AsyncConnection[Any], figures: Figures, fetch: Fetch
) -> None:
    rides = [
        Ride(atc=0, balance_fen=100_000, psam_serial=10, when=at(0)),
        Ride(atc=1, balance_fen=99_000, psam_serial=11, when=at(1)),  # 800 less than the last ride left
        Ride(atc=9, balance_fen=98_800, psam_serial=15, when=at(2)),
        Ride(atc=10, balance_fen=99_600, psam_serial=16, when=at(3)),  # a load of 1 000
        Ride(atc=10, balance_fen=99_600, psam_serial=17, when=at(4)),  # a clone
        Ride(card=2, atc=0, psam_serial=16, when=at(5)),  # a serial that is used up
    ]
    for ride in reversed(rides[:4]):  # the order of arrival does not matter
        await office.take(upload(ride.pack()))
    await office.take(upload(rides[4].pack(), rides[5].pack()))
    assert await figures("atc_jump", "chain_fen") == [
        (1, 1_000),
        (8, None),
        (1, -800),
        (None, None),
        (None, None),
        (None, None),
    ]
    assert await figures("atc_collision", "serial_collision") == [(0, 0)] * 4 + [(1, 0), (0, 1)]
    assert await figures("reader_missing_24h") == [3, 3, 0, 0, None, None]
    fetch("UPDATE purse SET loaded_fen = 100 WHERE card_no = 1 RETURNING 1")
    await fold_purses(link)
    assert await figures("shadow_balance_fen") == [-700] * 4 + [None, None]


async def test_what_errors_a_reader_a_terminal_and_a_card_make(office: Office, figures: Figures) -> None:
    wrong = [Ride(card=n, atc=0, tac=b"\1\2\3\4", when=at(n)).pack() for n in (1, 2)]
    good = Ride(card=3, when=at(9)).pack()
    await office.take(upload(*wrong, good))
    await office.take(upload(good, b"\1" * 96, b"\2" * 96))
    assert await figures("reader_tac_errors_24h") == [1, 2, 2, 2, None, None]
    assert await figures("card_tac_errors_24h") == [1, 1, 0, 0, None, None]
    assert await figures("terminal_broken_24h") == [0, 0, 0, 0, 2, 2]
    assert (await figures("terminal_duplicates_24h"))[3] == 1


async def test_torn_cards_leave_greys_and_a_paid_one_is_a_ride(
    office: Office, link: AsyncConnection[Any], figures: Figures
) -> None:
    greys = [Ride(atc=n, balance_fen=100_000 - 200 * n, kind=RecordKind.GREY, when=at(n)) for n in range(2)]
    after = Ride(atc=2, balance_fen=99_600, when=at(2))
    await office.take(upload(*(ride.pack() for ride in (*greys, after))))
    assert await figures("card_greys_7d", "ride") == [(1, 0), (2, 0), (2, 1)]
    assert (await adjudicate(link)).paid == 2
    assert await figures("grey", "ride", "result", "card_rides_1h") == [
        (1, 1, 0, 1),
        (1, 1, 0, 2),
        (0, 1, 10, 3),
    ]


async def test_a_retired_card_and_a_listed_one_are_known_by_their_days(
    office: Office, figures: Figures, fetch: Fetch
) -> None:
    fetch("UPDATE card SET state = 8 WHERE card_no = 1 RETURNING 1")
    fetch(
        "INSERT INTO registry_change (at, actor, subject, change)"
        " VALUES (now() - INTERVAL '9 days', 'li wei', 'card 1', '{\"after\": {\"state\": 8}}') RETURNING 1"
    )
    fetch(
        "INSERT INTO hot_list_version (version, published_at, actor, entries, added, removed)"
        " VALUES (1, now() - INTERVAL '12 days', 'li wei', 1, 1, 0) RETURNING 1"
    )
    fetch("INSERT INTO hot_list_entry VALUES (%s, 0, 'CANCELLED', 1) RETURNING 1", "0" + pan_of(2))
    now = datetime.now(SHANGHAI) - timedelta(minutes=5)
    await office.take(upload(*(Ride(card=n, when=now).pack() for n in (1, 2, 3))))
    assert await figures("retired_days", "listed_days") == [(8, None), (None, 11), (None, None)]


async def test_every_figure_can_be_asked_for_at_once_and_of_nothing(figures: Figures) -> None:
    assert await figures(*FEATURES) == []
