"""Roll-outs: the rules as a table, stages over 0800/390 and what terminals are asked for, stops, and content that is taken back."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from switch.domain.errors import InputRefused
from switch.domain.transactions import HotListDownload
from switch.messages.hot_list import read_block
from switch.registry import city_list, hot_list, parameters
from switch.registry.hot_list_download import HotLists, confirm_list
from switch.registry.list_keeping import look
from switch.registry.list_rollout import (
    EVERYBODY,
    Figures,
    Move,
    Plan,
    advance,
    change_group,
    groups_of,
    history_of,
    judge,
    percent_of,
    read_plan,
    resume,
    status_of,
    stop,
)
from switch.registry.parameters import RULES, Scope, set_parameters
from switch.registry.upkeep import store_status, wanted_parameters
from tests.unit.registry.conftest import Connect

AT = datetime(2024, 3, 15, tzinfo=UTC)


def figures(**changes: Any) -> Figures:
    usual = Figures(
        1,
        "HOT",
        5,
        4,
        ("5", "25", "100"),
        1,
        5,
        "RUNNING",
        95,
        600,
        AT,
        AT,
        900.0,
        100,
        96,
        100,
        0,
        0,
        0,
        900,
        0,
        None,
    )
    return usual._replace(**changes)


#   what terminals make of it                                             the switch does
RULES_TABLE: list[tuple[dict[str, Any], Move]] = [
    ({}, Move.STAGE),
    ({"held": 95}, Move.STAGE),
    ({"held": 94}, Move.WAIT),
    ({"staged_s": 599.0}, Move.WAIT),
    ({"stage": 3, "percent": 100}, Move.COMPLETE),
    ({"stage": 3, "percent": 100, "staged_s": 0.0}, Move.COMPLETE),
    ({"stage": 3, "percent": 100, "held": 10}, Move.WAIT),
    ({"reached": 0, "held": 0, "fetched": 0}, Move.WAIT),
    ({"stage": 3, "reached": 0, "held": 0, "fetched": 0}, Move.WAIT),
    ({"refused": 2}, Move.STAGE),  # two are defects of their own
    ({"refused": 3}, Move.STOP),
    ({"refused": 1, "restless": 2}, Move.STOP),
    ({"refused": 3, "fetched": 1_000}, Move.STAGE),  # three of a thousand too
    ({"refused": 20, "fetched": 1_000}, Move.STOP),
    ({"stage": 3, "percent": 100, "restless": 4}, Move.STOP),
    ({"silent": 25, "others_silent": 20}, Move.STOP),
    ({"silent": 25, "others_silent": 300}, Move.STAGE),  # it is night
    ({"silent": 19, "others_silent": 0}, Move.STAGE),
    ({"silent": 90, "others": 2}, Move.STAGE),  # nobody to compare with
]


@pytest.mark.parametrize(("changes", "move"), RULES_TABLE)
def test_a_roll_out_goes_on_when_most_have_it_and_stops_when_it_does_harm(
    changes: dict[str, Any], move: Move
) -> None:
    assert judge(figures(**changes))[0] is move


def test_a_plan_grows_to_everybody_and_says_nothing_twice() -> None:
    assert read_plan("pilot, 5%,25,100", 60, 90) == Plan(("pilot", "5", "25", "100"), 60, 90)
    assert [percent_of(("pilot", "5", "25", "100"), stage) for stage in (1, 2, 3, 4)] == [0, 5, 25, 100]
    for bad in (
        "",
        "5",
        "25,5,100",
        "5,5,100",
        "100,pilot",
        "0,100",
        "101",
        "a,a,100",
        "Pilot,100",
        ",".join(map(str, range(1, 30))),
    ):
        with pytest.raises(InputRefused, match="stages"):
            read_plan(bad, 60, 90)


def asn(number: int) -> str:
    return f"0313350019{number:010d}"


def draw(connection: Any, *numbers: int) -> None:
    connection.execute("DELETE FROM hot_list_draft")
    for number in numbers:
        connection.execute(
            "INSERT INTO hot_list_draft (asn, level, reason, actor) VALUES (%s, 1, 'COUNTERFEIT', 'li wei')",
            [asn(number)],
        )


@pytest.fixture
def connection(city_url: str) -> Iterator[Any]:
    with psycopg.connect(city_url, autocommit=True) as opened:
        yield opened


def number_of(connection: Any, terminal_id: str) -> int:
    row = connection.execute(
        "SELECT terminal_no FROM terminal WHERE terminal_id = %s", [terminal_id]
    ).fetchone()
    return int(row[0])


def heard(connection: Any, *numbers: int, age: str = "0 s") -> None:
    for number in numbers:
        connection.execute(
            "INSERT INTO terminal_seen VALUES (%s, clock_timestamp() - %s::interval)"
            " ON CONFLICT (terminal_no) DO UPDATE SET seen_at = excluded.seen_at",
            [number, age],
        )


@pytest.mark.server
async def test_a_list_goes_from_its_pilots_to_everybody_and_each_stage_is_answered_by_its_own_version(
    connection: Any, connect: Connect
) -> None:
    reader, lists = await connect(), HotLists()
    pilot, other = number_of(connection, "33500001"), number_of(connection, "33500005")
    heard(connection, pilot, other)
    draw(connection, 1)
    hot_list.publish(connection, "li wei")
    change_group(connection, "pilot", ["33500001"], [])
    assert groups_of(connection) == [("pilot", ["33500001"])]
    draw(connection, 2)
    hot_list.publish(connection, "li wei", Plan(("pilot", EVERYBODY), soak_s=0, coverage_pct=100))
    change_group(connection, "pilot", ["33500005"], ["33500001"])  # too late for this one

    async def version_for(number: int, held: int) -> tuple[str, int, int]:
        raw = await lists.block(reader, number, HotListDownload("I" if held else "F", held, 1))
        assert raw is not None
        block = read_block(raw)
        return block.mode, block.version, len(block.entries)

    assert await version_for(other, 0) == ("F", 1, 1)
    await confirm_list(reader, other)
    assert [at.held for at in await look(reader)] == [0]
    assert await version_for(pilot, 0) == ("F", 2, 2)
    with pytest.raises(InputRefused, match="still being rolled out"):
        hot_list.publish(connection, "li wei")
    await confirm_list(reader, pilot)
    await confirm_list(reader, pilot)  # a repeat
    assert [(at.reached, at.held, at.fetched, at.state) for at in await look(reader)] == [
        (1, 1, 1, "RUNNING")
    ]
    assert await version_for(other, 1) == ("I", 2, 1)
    assert [(at.reached, at.held, at.percent) for at in await look(reader)] == [(2, 1, 100)]
    await confirm_list(reader, other)
    before = await look(reader)
    assert [(at.held, at.state, at.to_95_s is not None) for at in before] == [(2, "RUNNING", True)]
    assert [(at.state, at.coverage) for at in await look(reader)] == [("COMPLETE", 100.0)]
    told = [(event.action, event.stage, event.actor) for event in history_of(connection, ("HOT",), 9)]
    assert told == [
        ("COMPLETE", 2, "switch"),
        ("STAGE", 2, "switch"),
        ("BEGIN", 1, "li wei"),
        ("SUPERSEDE", 1, "li wei"),
        ("BEGIN", 1, "li wei"),
    ]
    with pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("DELETE FROM list_event")


@pytest.mark.server
async def test_a_list_that_terminals_refuse_is_stopped_by_itself_and_taken_back_under_a_new_number(
    connection: Any, connect: Connect
) -> None:
    reader, lists = await connect(), HotLists()
    for number in range(20, 26):
        connection.execute(
            "INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm)"
            " SELECT %s, merchant_no, 5 FROM merchant WHERE merchant_id = '898335054110001'",
            [f"335000{number}"],
        )
    numbers = [number_of(connection, f"335000{number}") for number in range(20, 26)]
    heard(connection, *numbers)
    draw(connection, 1, 2)
    hot_list.publish(connection, "li wei")
    change_group(connection, "pilot", [f"335000{number}" for number in range(20, 24)], [])
    draw(connection, 3)
    hot_list.publish(connection, "li wei", Plan(("pilot", EVERYBODY)))
    values = dict((await wanted_parameters(reader, numbers[0])).values)
    for number in numbers[:3]:
        await lists.block(reader, number, HotListDownload("F", 0, 1))
        await store_status(reader, number, [*(values | {"31": "00000001", "36": "13"}).items()])
    await look(reader)
    (at,) = status_of(connection, ("HOT",))
    assert (at.state, at.refused, at.fetched) == ("STOPPED", 3, 3)
    wanted = "SELECT list_wanted('HOT', %s, %s)"
    # Who has it keeps it, nobody further is offered it, and who names a version that does not exist is told the one before.
    found = [connection.execute(wanted, [numbers[0], held]).fetchone()[0] for held in (0, 1, 2, 99_999_999)]
    assert found == [1, 1, 2, 1]
    with pytest.raises(InputRefused, match="stopped"):
        hot_list.publish(connection, "li wei")
    with pytest.raises(InputRefused, match="not being rolled out"):
        stop(connection, "HOT", "li wei", "again")
    with pytest.raises(InputRefused, match="no further stage"):
        advance(connection, "HOT", "li wei")
    assert resume(connection, "HOT", "wang fang").state == "STOPPED"  # as it was found
    assert stop(connection, "HOT", "wang fang", "no").state == "RUNNING"
    back = hot_list.roll_back(connection, "wang fang")
    assert (back.version, back.entries, back.added, back.removed) == (3, 2, 0, 1)
    assert [row[0] for row in hot_list.listed(connection)] == [asn(1), asn(2)]
    assert connection.execute(wanted, [numbers[5], 1]).fetchone()[0] == 3
    raw = await lists.block(reader, numbers[0], HotListDownload("I", 2, 1))
    assert raw is not None
    assert [entry.operation for entry in read_block(raw).entries] == ["D"]
    actions = [(event.version, event.action) for event in history_of(connection, ("HOT",), 3)]
    assert actions == [(3, "BEGIN"), (2, "SUPERSEDE"), (2, "STOP")]


@pytest.mark.server
async def test_parameters_and_white_lists_are_rolled_out_and_taken_back_the_same_way(
    connection: Any, connect: Connect
) -> None:
    reader = await connect()
    pilot, other = number_of(connection, "33500001"), number_of(connection, "33500005")
    change_group(connection, "pilot", ["33500001"], [])
    plan = Plan(("pilot", EVERYBODY))
    everybody = Scope()
    assert set_parameters(connection, everybody, {RULES["timeout_s"]: 45}, "li wei", plan) == [
        RULES["timeout_s"]
    ]

    async def timeouts() -> list[str]:
        return [dict((await wanted_parameters(reader, number)).values)["12"] for number in (pilot, other)]

    assert await timeouts() == ["45", "60"]
    with pytest.raises(InputRefused, match="still being rolled out"):
        set_parameters(connection, everybody, {RULES["resends"]: 1}, "li wei")
    assert advance(connection, "PARAM", "li wei").stage == 2
    assert await timeouts() == ["45", "45"]
    assert parameters.roll_back(connection, "li wei") == 3
    assert await timeouts() == ["60", "60"]
    assert [
        tuple(row) for row in connection.execute("SELECT version, entries FROM list_version ORDER BY version")
    ] == [
        (1, 5),
        (2, 5),
        (3, 5),
    ]
    own = city_list.Entry("I", "99993350FFFFFFFF", 0)
    near = city_list.Entry("C", "3310", 1)
    assert city_list.publish(connection, [own], "li wei") == 1
    assert city_list.publish(connection, [own], "li wei") is None
    assert city_list.publish(connection, [own, near], "li wei", plan) == 2
    wanted = "SELECT list_wanted('CITY', %s, 1)"
    assert [connection.execute(wanted, [number]).fetchone()[0] for number in (pilot, other)] == [2, 1]
    assert city_list.roll_back(connection, "li wei") == 3
    assert city_list.listed(connection) == [own]


def test_a_white_list_without_an_issuer_or_with_a_bad_line_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "city.csv"
    head, own = "what,value,use\n", "issuer,99993350FFFFFFFF,own\n"
    for text, rule in [
        ("", "first line"),
        (head, "no issuer is left"),
        (head + "city,3310,interop\n", "no issuer is left"),
        (head + "issuer,99993350ffffffff,own\n", "line 2: value"),
        (head + "city,331,own\n", "line 2: value"),
        (head + "card,3310,own\n", "line 2: what"),
        (head + "city,3310,both\n", "line 2: use"),
        (head + own + own, "line 3: named twice"),
        (head + "city,3310\n", "3 values"),
    ]:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputRefused, match=rule):
            city_list.read_file(file)
    file.write_text(head + own + "city,3310,interop\n", encoding="utf-8")
    assert city_list.read_file(file) == [
        city_list.Entry("I", "99993350FFFFFFFF", 0),
        city_list.Entry("C", "3310", 1),
    ]
