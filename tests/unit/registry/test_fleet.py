"""The fleet: who is behind, whose clock is off, what is missing, and which bus has not come home."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.registry.fleet import EVENING, Member, chosen, read_fleet
from switch.registry.list_keeping import LastSeen, keep_noting
from switch.storage.sql import load
from tests.unit.registry.conftest import Connect

pytestmark = pytest.mark.server
RECORD = bytes(38) + bytes.fromhex("20991231235959") + bytes(51)


@pytest.fixture
def connection(city_url: str) -> Any:
    with psycopg.connect(city_url, autocommit=True) as opened:
        opened.execute("SET TIME ZONE 'UTC'")
        yield opened


def member(connection: Any, terminal_id: str = "33500001") -> Member:
    return next(one for one in read_fleet(connection, 2).members if one.terminal_id == terminal_id)


def number_of(connection: Any, terminal_id: str) -> int:
    row = connection.execute(
        "SELECT terminal_no FROM terminal WHERE terminal_id = %s", [terminal_id]
    ).fetchone()
    return int(row[0])


async def test_a_bus_is_away_until_it_uploads_and_what_it_says_is_held_against_what_should_be(
    connection: Any, connect: Connect
) -> None:
    bus = number_of(connection, "33500001")
    found = read_fleet(connection, 2)
    assert [one.terminal_id for one in found.members] == ["33500001", "33500005"]  # closed ones are not shown
    assert timedelta() <= found.now - found.evening < timedelta(days=1)
    nobody = found.members[0]
    assert (nobody.bus, nobody.away, nobody.seen_at, nobody.skew_s, nobody.hot_behind) == (
        True,
        False,
        None,
        None,
        0,
    )

    for version in (1, 2, 3):
        connection.execute(
            "INSERT INTO hot_list_version (version, actor, entries, added, removed) VALUES (%s, 'a', 0, 0, 0)",
            [version],
        )
    connection.execute(
        "INSERT INTO terminal_status (terminal_no, hot_list_held, reported_at, reported) VALUES (%s, 1, '2024-03-15 00:00:00+00', %s)",
        [bus, '{"32": "000007", "33": "00000004", "35": "20240315080730"}'],
    )
    connection.execute(
        "INSERT INTO purse_sequence (kind, owner, first_no, next_no, missing)"
        " VALUES (3, %s, 0, 20, '{[3,5),[9,10)}'), (2, 335000000001, 0, 9, '{[2,3)}')",
        [bus],
    )
    one = member(connection)
    assert (one.hot_held, one.hot_wanted, one.hot_behind, one.city_held, one.unsent) == (1, 3, 2, 4, 7)
    assert (one.skew_s, one.missing_records, one.missing_psam, one.parameters_current) == (450, 3, 1, False)
    assert one.away  # it has unsent records
    found = read_fleet(connection, 2)
    for only in ("behind", "away", "unsent", "skewed", "gaps", "parameters"):
        assert chosen(found, [only], "", "id")[0].terminal_id == "33500001"
    assert [row.terminal_id for row in chosen(found, ["silent"], "", "seen")] == [
        "33500005"
    ]  # its status was a moment ago
    assert chosen(found, [], "nobody", "id") == []
    with pytest.raises(InputRefused, match="only"):
        chosen(found, ["lost"], "", "id")
    with pytest.raises(InputRefused, match="order"):
        chosen(found, [], "", "worst")

    # Its upload is in the journal; that it was heard got lost with the process that heard it.
    connection.execute("UPDATE terminal_status SET reported = reported - '32'")
    day = connection.execute(
        "SELECT make_day_partition('journal', (clock_timestamp() AT TIME ZONE 'Asia/Shanghai')::date)"
    )
    assert day.fetchone() is not None
    assert not member(connection).away or read_fleet(connection, 2, EVENING).members[0].away
    connection.execute(
        "INSERT INTO terminal_seen VALUES (%s, clock_timestamp(), clock_timestamp() - interval '2 days')",
        [bus],
    )
    assert member(connection).away
    connection.execute(
        "INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, amount_fen,"
        " answer, rrn, decided_at, digest)"
        " VALUES (mod(%(bus)s, 2), (clock_timestamp() AT TIME ZONE 'Asia/Shanghai')::date, %(bus)s, 1, 1, 0, 1, 1, 20, 0, '00',"
        " '000000000001', clock_timestamp(), sha256('x'))",
        {"bus": bus},
    )
    assert not member(connection).away


async def test_who_was_heard_is_written_down_by_several_processes_and_never_set_back(
    connection: Any, connect: Connect
) -> None:
    bus, other = number_of(connection, "33500001"), number_of(connection, "33500005")
    reader = await connect()
    one, two = LastSeen(), LastSeen()
    one.uploaded(bus, 100.0, RECORD)
    one.heard(other, 90.0)
    one.heard(999_999, 90.0)  # it was unregistered meanwhile
    two.heard(bus, 40.0)
    two.uploaded(other, 40.0, bytes(96))  # no time at all
    await one.flush(reader, 100.0)
    await two.flush(reader, 100.0)  # a minute behind
    await two.flush(reader, 200.0)  # nothing new
    rows = connection.execute(
        "SELECT terminal_no, clock_timestamp() - seen_at < interval '50 s', clock_timestamp() - uploaded_at < interval '50 s', record_at::text"
        " FROM terminal_seen ORDER BY terminal_no"
    ).fetchall()
    assert rows == [(bus, True, True, "2099-12-31 23:59:59"), (other, True, False, None)]
    skew_s = member(connection).skew_s
    assert skew_s is not None
    assert skew_s > 10**9
    # Cancelled, it writes once more; a lost database loses nothing that was noted.
    three = LastSeen()
    three.heard(bus, 500.0)
    closed = await AsyncConnection.connect(connection.info.dsn, autocommit=True)
    await closed.close()
    with pytest.raises(psycopg.Error):
        await three.flush(closed, 500.0)
    connection.execute("DELETE FROM terminal_seen")

    class Given:
        async def __aenter__(self) -> AsyncConnection[Any]:
            return reader

        async def __aexit__(self, *_exc: object) -> None:
            return None

    task = asyncio.create_task(keep_noting(Given, three, lambda: 501.0, every_s=3_600.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.execute("SELECT count(*) FROM terminal_seen").fetchone() == (1,)


@pytest.mark.parametrize(
    ("file", "name", "values"),
    [
        ("fleet.sql", "fleet", {"since": "2024-03-15 20:00+08", "shards": 2}),
        ("queries.sql", "terminals_by_id", {"terminal_ids": ["33500001"]}),
        ("upkeep.sql", "statuses", {"terminal_ids": None}),
    ],
)
def test_what_terminals_should_hold_is_worked_out_inside_the_query_that_asks(
    connection: Any, file: str, name: str, values: dict[str, Any]
) -> None:
    # A function that the planner does not take in is planned and run again for each terminal: 5 000 of them took a minute.
    query = f"EXPLAIN (VERBOSE) {load('switch.registry', file)[name]}".replace(")b", ")s")
    rows = psycopg.ClientCursor(connection).execute(query.encode(), values).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "list_rollout" in plan
    assert not re.search(r"(list_\w+|parameters_version|parameters_due)\(", plan)
