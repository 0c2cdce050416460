"""Parameters and status over the wire: what a terminal is told, what follows from its report, and how often it is asked."""

import json
from typing import Any

import psycopg
import pytest

from switch.messages.answers import Processing
from terminal_sim.frames import Terminal
from terminal_sim.pos import Pos
from terminal_sim.pos_client import PosClient
from terminal_sim.pos_downloads import Holdings, fetch_parameters, upload_status
from tests.helpers.till import Seen, Till
from tests.scenarios.conftest import Two, asked

pytestmark = pytest.mark.server

CHOSEN = {"12": "60", "13": "3", "26": "00100000", "28": "00100000", "29": "5", "30": "07"}


def client_of(two: Two, terminal: Terminal) -> PosClient:
    return PosClient(Pos(terminal), two.one.line)


def defaults_of(two: Two) -> dict[str, str]:
    """What a terminal is told for which nobody chose anything: of the open day, when it ends."""
    with psycopg.connect(two.town.database_url) as connection:
        row = connection.execute(
            "SELECT to_char(ends_at AT TIME ZONE 'Asia/Shanghai', 'HH24MISS') FROM business_day"
            " WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at"
        ).fetchone()
    assert row is not None
    return CHOSEN | {"27": row[0]}


def known_of(two: Two, terminal: Terminal) -> Any:
    """What the switch keeps of a terminal."""
    with psycopg.connect(two.town.database_url) as connection:
        return connection.execute(
            "SELECT s.parameters_held = parameters_version(t.terminal_no, '5411'), s.hot_list_held, s.reported"
            "  FROM terminal_status s JOIN terminal t USING (terminal_no) WHERE terminal_id = %s",
            [terminal.terminal_id],
        ).fetchone()


@pytest.mark.parametrize("mac_id", [1, 5])
async def test_a_terminal_fetches_its_parameters_says_so_reports_them_and_is_asked_for_nothing(
    two: Two, mac_id: int
) -> None:
    terminal, holdings = two.town.new_terminal(mac_id), Holdings()
    client = client_of(two, terminal)
    await fetch_parameters(client, holdings)
    assert holdings.parameters == defaults_of(two)
    assert known_of(two, terminal) == (True, None, None)
    answer = await upload_status(client, holdings)
    assert answer.processing == Processing.NONE
    assert known_of(two, terminal) == (True, 0, defaults_of(two) | {"31": "00000000", "32": "000000"})
    card = two.town.new_card()
    for line in (two.one.line, two.other.line):
        client.close()
        client.line = line
        sold = await client.purchase(card, 100)
        assert sold.approved
        assert sold.answer is not None
        assert sold.answer.processing == Processing.NONE
    client.close()


async def test_a_value_set_for_one_terminal_reaches_it_and_nobody_else_and_it_is_asked_by_both_processes(
    two: Two,
) -> None:
    terminal, other, holdings = two.town.new_terminal(), two.town.new_terminal(), Holdings()
    clients = [client_of(two, terminal), client_of(two, other)]
    for client in clients:
        await fetch_parameters(client, holdings)
        await upload_status(client, holdings)
    two.town.run("parameters", "set", "offline_purchase_max_fen=2500", "--terminal", terminal.terminal_id)
    card = two.town.new_card()
    for line in (two.one.line, two.other.line):
        for client in clients:
            client.close()
            client.line = line
        assert await asked(clients[0], card) == Processing.FETCH_PARAMETERS
        assert (await clients[1].balance(card)).processing == Processing.NONE
    for client in clients:
        await fetch_parameters(client, holdings)
        expected = "00002500" if client is clients[0] else "00100000"
        assert holdings.parameters == defaults_of(two) | {"28": expected}
        assert (await upload_status(client, holdings)).processing == Processing.NONE
        client.close()
    shown = json.loads(two.town.run("parameters", "show", "--terminal", terminal.terminal_id, "--json"))
    assert ["28", "offline_purchase_max_fen", "00002500", "terminal"] in [
        list(value.values()) for value in shown["parameters"]
    ]


async def test_a_terminal_that_reports_other_values_is_asked_to_fetch_them_and_one_that_fetches_is_believed(
    two: Two,
) -> None:
    terminal, holdings = two.town.new_terminal(), Holdings()
    client = client_of(two, terminal)
    await fetch_parameters(client, holdings)
    right = dict(holdings.parameters)
    holdings.parameters["26"] = "00200000"
    assert (await upload_status(client, holdings)).processing == Processing.FETCH_PARAMETERS
    assert known_of(two, terminal)[0] is None
    holdings.parameters = {"12": "60"}  # says little, but nothing wrong: nothing is learnt
    await upload_status(client, holdings)
    assert known_of(two, terminal)[0] is None
    holdings.parameters = right
    assert (await upload_status(client, holdings)).processing == Processing.NONE
    assert known_of(two, terminal)[0] is True
    client.close()


async def test_a_terminal_that_can_do_none_of_it_is_asked_once_for_each_and_then_left_alone(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    card = two.town.new_card()
    asked = [(await till.buy(card, 1)).header[2] & 0x0F for _ in range(8)]
    assert asked == [Processing.FETCH_PARAMETERS, Processing.UPLOAD_STATUS] + 6 * [Processing.NONE]
    await till.sign_on()  # a new session is no new reason
    assert (await till.buy(card, 1)).header[2] & 0x0F == Processing.NONE


async def test_a_confirmation_counts_for_what_was_sent_and_not_for_what_was_set_since(
    two: Two, seen: Seen
) -> None:
    terminal = two.town.new_terminal()
    till = await Till(terminal, seen, two.one.line).sign_on()
    assert await till.code(till.pos.management("361")) == "00"  # of nothing that was sent
    assert known_of(two, terminal) is None
    assert await till.code(till.pos.management("360", field62=b"0000")) == "00"
    two.town.run("parameters", "set", "resends=4", "--terminal", terminal.terminal_id)
    for _ in range(2):  # by whichever process, and again
        assert await till.code(till.pos.management("361"), two.other.line) == "00"
    assert known_of(two, terminal)[0] is False
    fetched = await till.ask(till.pos.management("360", field62=b"0000"))
    assert b"134" in fetched.fields[62]
    assert await till.code(till.pos.management("361")) == "00"
    assert known_of(two, terminal)[0] is True


async def test_blocks_that_are_not_there_and_requests_without_form_are_refused(two: Two, seen: Seen) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    for field62, code in [(b"0001", "12"), (b"9999", "12"), (b"000A", "30"), (b"000", "30"), (b"", "30")]:
        answer = await till.ask(till.pos.management("360", field62=field62))
        assert (answer.fields[39], 62 in answer.fields) == (code, False)
    for status in (b"99", b"1260126", b"126", b"12601260", b"\xff"):
        assert await till.code(till.pos.management("362", "0820", status)) == "30"


async def test_a_trainee_fetches_parameters_too(two: Two, seen: Seen) -> None:
    terminal = two.town.new_terminal(training=True)
    till = await Till(terminal, seen, two.one.line).sign_on()
    answer = await till.ask(till.pos.management("360", field62=b"0000"))
    assert answer.fields[62][:5] == b"01260"
