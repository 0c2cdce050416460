"""What operators set and terminals are told: scopes, ranges, the record of changes, and what becomes of a report."""

import asyncio
from typing import Any

import psycopg
import pytest

from switch.domain.errors import InputRefused
from switch.registry.parameters import (
    Scope,
    parameter_log,
    read_assignment,
    set_parameters,
    show_parameters,
)
from switch.registry.upkeep import confirm_parameters, offer_parameters, store_status, wanted_parameters
from tests.unit.registry.conftest import Connect

pytestmark = pytest.mark.server

ALL, BUSES, ONE = Scope(), Scope(category="4111"), Scope(terminal_id="33500001")


@pytest.fixture
def connection(city_url: str) -> Any:
    with psycopg.connect(city_url, autocommit=True) as opened:
        yield opened


def told(connection: Any, scope: Scope) -> dict[str, str]:
    return {value.tag: value.value for value in show_parameters(connection, scope)}


def put(connection: Any, scope: Scope, *assignments: str, actor: str = "li wei") -> list[str]:
    wanted = dict(map(read_assignment, assignments))
    return [rule.name for rule in set_parameters(connection, scope, wanted, actor)]


def test_the_narrowest_scope_counts_and_inherit_gives_way_to_the_next(connection: Any) -> None:
    assert told(connection, ONE)["13"] == "3"
    put(connection, ONE, "resends=1")
    put(connection, BUSES, "resends=2")
    put(connection, ALL, "resends=4")
    assert [told(connection, scope)["13"] for scope in (ONE, BUSES, ALL)] == ["1", "2", "4"]
    assert told(connection, Scope(terminal_id="33500010"))["13"] == "4"  # of another category
    put(connection, ONE, "resends=inherit")
    assert told(connection, ONE)["13"] == "2"
    put(connection, BUSES, "resends=inherit")
    assert told(connection, ONE)["13"] == "4"
    assert {value.source for value in show_parameters(connection, ONE)} == {"all", "switch"}


def test_setting_what_is_so_already_changes_nothing_and_writes_nothing(connection: Any) -> None:
    before = len(parameter_log(connection, 100))
    assert put(connection, ALL, "timeout_s=60", "resends=5") == ["resends"]
    assert put(connection, ONE, "resends=5", "timeout_s=inherit") == ["resends"]  # its own, though the same
    assert put(connection, ONE, "resends=5") == []
    assert len(parameter_log(connection, 100)) == before + 2


def test_every_change_stays_with_who_made_it_and_none_can_be_altered(connection: Any) -> None:
    put(connection, BUSES, "hot_list_age_days=3", actor="wang fang")
    change = parameter_log(connection, 1)[0]
    assert (change.actor, str(change.scope), change.name, change.value) == (
        "wang fang",
        "category 4111",
        "hot_list_age_days",
        3,
    )
    for statement in ("UPDATE terminal_parameter SET value = 1", "DELETE FROM terminal_parameter"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(statement)


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("timeout_s=4", "5 to 99"),
        ("timeout_s=100", "5 to 99"),
        ("timeout_s=", "whole number"),
        ("timeout_s", "whole number"),
        ("timeout_s=-1", "whole number"),
        ("timeout_s=6e1", "whole number"),
        ("timeout_s=６０", "whole number"),
        ("purse_balance_max_fen=100000000", "whole number"),
        ("cut_off=220000", "cannot be set"),
        ("records_per_upload=9", "cannot be set"),
        ("12=60", "unknown"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_rule(assignment: str, rule: str) -> None:
    with pytest.raises(InputRefused, match=rule):
        read_assignment(assignment)


def test_one_bad_value_leaves_all_as_they_were(connection: Any) -> None:
    with pytest.raises(InputRefused, match="no wider scope"):
        put(connection, ALL, "resends=9", "timeout_s=inherit")
    assert told(connection, ALL)["13"] == "3"
    with pytest.raises(InputRefused, match="registered"):
        put(connection, Scope(terminal_id="99999999"), "resends=9")


async def number_of(connection: psycopg.AsyncConnection[Any], terminal_id: str) -> int:
    cursor = await connection.execute(
        "SELECT terminal_no FROM terminal WHERE terminal_id = %s", [terminal_id]
    )
    row = await cursor.fetchone()
    assert row is not None
    number: int = row[0]
    return number


async def test_the_cut_off_told_is_the_end_of_the_open_day(connect: Connect) -> None:
    connection = await connect()
    number = await number_of(connection, "33500001")
    await connection.execute(
        "UPDATE business_day SET ends_at = date_trunc('hour', now()) + interval '150 minutes'"
    )
    cursor = await connection.execute(
        "SELECT to_char(ends_at AT TIME ZONE 'UTC' + interval '8 hours', 'HH24MISS') FROM business_day"
    )
    assert (dict((await wanted_parameters(connection, number)).values)["27"],) == await cursor.fetchone()


async def test_a_report_is_judged_by_what_it_says(connect: Connect) -> None:
    connection = await connect()
    number = await number_of(connection, "33500001")
    right = (await wanted_parameters(connection, number)).values

    async def held() -> Any:
        cursor = await connection.execute("SELECT parameters_held, hot_list_held FROM terminal_status")
        return await cursor.fetchone()

    version = (await wanted_parameters(connection, number)).version
    await store_status(connection, number, [*right, ("31", "00000007")])
    assert await held() == (version, 7)
    await store_status(connection, number, [("12", "60")])
    assert await held() == (version, 7)  # nothing it says is against it
    await store_status(connection, number, [("12", "59")])
    assert await held() == (None, 7)
    await store_status(connection, number, [("12", "60")])
    assert await held() == (None, 7)
    await offer_parameters(connection, number)
    await confirm_parameters(connection, number)
    await confirm_parameters(connection, number)
    assert await held() == (version, 7)


async def test_numbers_of_changes_come_in_the_order_of_commits(connect: Connect, city_url: str) -> None:
    first = await connect()
    number = await number_of(first, "33500001")
    before = (await wanted_parameters(first, number)).version

    def change(value: int) -> None:
        with psycopg.connect(city_url, autocommit=True) as opened:
            put(opened, ALL, f"resends={value}")

    async with first.transaction():
        await first.execute("LOCK TABLE terminal_parameter IN SHARE ROW EXCLUSIVE MODE")
        waiting = asyncio.create_task(asyncio.to_thread(change, 7))
        second = await connect()
        while True:  # until it waits for the lock
            cursor = await second.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if await cursor.fetchone() == (1,):
                break
            await asyncio.sleep(0.01)
        await first.execute("INSERT INTO terminal_parameter (actor, tag, value) VALUES ('first', '13', 6)")
    await waiting
    wanted = await wanted_parameters(first, number)
    assert (dict(wanted.values)["13"], wanted.version) == ("7", before + 2)
