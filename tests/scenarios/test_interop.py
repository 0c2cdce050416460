"""Cards of other cities and of nobody, own accounts that a row moves, and a table that changes under load, by two processes."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.identifiers import luhn_digit
from switch.domain.transactions import AccountKind
from switch.registry import route_versions
from terminal_sim.frames import CardData
from terminal_sim.pos_client import Line
from tests.helpers.switch_process import until
from tests.helpers.till import Seen, Till, stored
from tests.helpers.town import MERCHANT, OTHER_MERCHANT, Town
from tests.scenarios.conftest import Two
from tests.unit.routing.tables import write

pytestmark = pytest.mark.server


def card_of(digits: str) -> CardData:
    payload = digits.ljust(18, "0")
    return CardData(payload + luhn_digit(payload), "001")


NEIGHBOUR, SHY, NOBODYS, UNKNOWN = map(card_of, ("313310", "313320", "622202", "31335001999999"))
ISSUERS = {
    "institutions": [
        {"institution_id": "99993310", "name": "Next City", "role": "CITY"},
        {"institution_id": "99993320", "name": "Shy City", "role": "CITY"},
    ],
    "card_issuers": [
        {
            "issuer_id": "99993310FFFFFFFF",
            "institution_id": "99993310",
            "own": False,
            "circle": "HANGZHOU",
        },
        {
            "issuer_id": "99993320FFFFFFFF",
            "institution_id": "99993320",
            "own": False,
            "circle": "DELTA",
            "scope": "HANGZHOU",
        },
    ],
}


def bring_in(town: Town, folder: Path, **kinds: Any) -> None:
    path = folder / "more.json"
    path.write_text(json.dumps({"format": "citizen-card-registry", "version": 1, **kinds}), encoding="utf-8")
    town.run("registry", "import", str(path))


@pytest.fixture(scope="module")
def _neighbours(two_processes: Two, tmp_path_factory: pytest.TempPathFactory) -> None:
    bring_in(two_processes.town, tmp_path_factory.mktemp("neighbours"), **ISSUERS)


@pytest.fixture
def country(two: Two, _neighbours: None) -> Two:
    """The town with two neighbours."""
    return two


def in_force(two: Two) -> set[float]:
    return {process.metric("cardswitch_route_table") for process in (two.one, two.other)}


@contextmanager
def routed(two: Two, folder: Path, *rows: str) -> Iterator[None]:
    """With a table in force in both processes; afterwards there is none."""
    version = put(two, folder, *rows)
    until(lambda: in_force(two) == {version}, 60, f"version {version} in both processes")
    try:
        yield
    finally:
        last = json.loads(two.town.run("routes", "rollback", "--json"))["version"]
        with psycopg.connect(
            two.town.database_url
        ) as connection:  # further back without a process for each step
            while last:
                last = route_versions.step_back(connection)
                route_versions.roll_back(connection, last, "a tester")
        until(lambda: in_force(two) == {0}, 60, "no table in both processes")


def put(two: Two, folder: Path, *rows: str) -> float:
    """Put a table in force; its version."""
    return float(json.loads(two.town.run("routes", "import", write(folder, *rows), "--json"))["version"])


async def till_of(two: Two, seen: Seen) -> Till:
    return await Till(two.town.new_terminal(), seen, two.one.line).sign_on()


def journal(two: Two, till: Till) -> list[tuple[str, int]]:
    """Answers and amounts in the journal, in order."""
    with psycopg.connect(two.town.database_url) as connection:
        return connection.execute(
            "SELECT answer, amount_fen FROM journal JOIN terminal USING (terminal_no) WHERE terminal_id = %s ORDER BY stan",
            [till.terminal.terminal_id],
        ).fetchall()


#   card         amount  answer
CASES = [
    (NEIGHBOUR, 100, "92"),
    (SHY, 100, "57"),
    (NOBODYS, 100, "15"),
    (UNKNOWN, 100, "14"),
    (CardData(NOBODYS.pan[:-1] + str((int(NOBODYS.pan[-1]) + 1) % 10), "001"), 100, "14"),
    (NOBODYS, 0, "13"),
    (NEIGHBOUR, 0, "13"),
]


async def test_cards_that_are_not_ours_are_refused_by_rule_and_their_repeats_get_the_same(
    country: Two, seen: Seen
) -> None:
    till = await till_of(country, seen)
    for card, amount_fen, code in CASES:
        purchase = till.pos.purchase(card, amount_fen)
        answer = await till.ask(purchase)
        assert answer.fields[39] == code
        assert not {15, 38, 54} & answer.fields.keys()
        assert stored(await till.ask(purchase, country.other.line)) == stored(answer)
    assert journal(country, till) == [(code, amount_fen) for _, amount_fen, code in CASES]
    assert await till.code(till.pos.balance(NOBODYS)) == "15"
    assert await till.code(till.pos.balance(NEIGHBOUR), country.other.line) == "92"


async def test_a_refused_request_is_reversed_with_00_and_a_late_one_with_22(country: Two, seen: Seen) -> None:
    till = await till_of(country, seen)
    purchase = till.pos.purchase(NOBODYS, 100)
    assert await till.code(purchase) == "15"
    assert await till.code(till.pos.reversal(purchase, "98"), country.other.line) == "00"
    late = till.pos.purchase(NEIGHBOUR, 100)
    assert await till.code(till.pos.reversal(late, "98")) == "25"
    assert await till.code(late) == "22"


async def test_an_acquirer_that_takes_no_cards_from_afar_answers_58(
    country: Two, seen: Seen, tmp_path: Path
) -> None:
    till = await till_of(country, seen)
    town = {"institution_id": "99993350", "name": "Test Town", "role": "ISSUER"}
    bring_in(country.town, tmp_path, institutions=[town | {"scope": "LOCAL"}])
    try:
        async with asyncio.timeout(60):
            while await till.code(till.pos.purchase(NEIGHBOUR, 100)) != "58":
                await asyncio.sleep(0.05)
        assert await till.code(till.pos.purchase(NOBODYS, 100)) == "15"
        assert (await till.buy(country.town.new_card(), 1)).fields[39] == "00"
    finally:
        bring_in(country.town, tmp_path, institutions=[town])


async def test_a_repeat_keeps_its_answer_whatever_the_table_has_become(
    country: Two, seen: Seen, tmp_path: Path
) -> None:
    till = await till_of(country, seen)
    own = country.town.new_card()
    before = [till.pos.purchase(NOBODYS, 100), till.pos.purchase(own, 100)]
    answers = [await till.ask(purchase) for purchase in before]
    assert [answer.fields[39] for answer in answers] == ["15", "00"]
    with routed(
        country, tmp_path, "10 cards=622202 REFUSE:57", f"20 merchant={MERCHANT} amount_fen=100 REFUSE:92"
    ):
        for purchase, answer in zip(before, answers, strict=True):
            assert stored(await till.ask(purchase, country.other.line)) == stored(answer)
        assert await till.code(till.pos.purchase(NOBODYS, 100)) == "57"
        assert await till.code(till.pos.purchase(own, 100)) == "92"
        assert await till.code(till.pos.purchase(own, 101)) == "00"
        # What undoes an approved one is not asked for its route.
        assert await till.code(till.pos.reversal(before[1], "98")) == "00"
    assert await till.code(till.pos.purchase(own, 100)) == "00"


async def test_a_row_moves_one_account_of_ours_and_leaves_the_others(
    country: Two, seen: Seen, tmp_path: Path
) -> None:
    till = await till_of(country, seen)
    card = country.town.new_card()  # without a medical account, which the ledger answers with 57

    async def medical(line: Line) -> str:
        return await till.code(till.pos.balance(card, account=AccountKind.MEDICAL), line)

    lines = (country.one.line, country.other.line)
    with routed(
        country, tmp_path, "10 account=MEDICAL HOST:social", f"20 merchant={OTHER_MERCHANT} REFUSE:57"
    ):
        for line in lines:
            assert await medical(line) == "92"
            assert await till.code(till.pos.purchase(card, 1), line) == "00"
    with routed(country, tmp_path, "10 account=MEDICAL HOST:social>LEDGER"):
        assert [await medical(line) for line in lines] == ["57", "57"]
    assert [await medical(line) for line in lines] == ["57", "57"]


async def test_a_table_replaced_under_load_is_seen_whole_and_stops_nobody(
    country: Two, seen: Seen, tmp_path: Path
) -> None:
    """Two tables that both have something to say about 6222: 15, which is built in, would be half of one."""
    first = ("10 cards=622202 REFUSE:57", "20 cards=6222 REFUSE:92", "30 account=MEDICAL REFUSE:57")
    second = (
        "10 cards=622202 amount_fen=1-50 REFUSE:57",
        "20 cards=622202 amount_fen=51- REFUSE:92",
        "30 cards=6 REFUSE:92",
    )
    said: Counter[str] = Counter()
    done = asyncio.Event()

    async def work(till: Till, card: CardData) -> None:
        n = 0
        while not done.is_set():
            n += 1
            line = (country.one.line, country.other.line)[n % 2]
            said[await till.code(till.pos.purchase(NOBODYS, 100), line)] += 1
            assert await till.code(till.pos.purchase(card, 1), line) == "00"
            await asyncio.sleep(0.02)  # leaves the commands a share of the processor

    with routed(country, tmp_path, *first):
        tills = [await till_of(country, seen) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for till in tills:
                group.create_task(work(till, country.town.new_card("rich")))
            for rows in (second, first, second, first, second):
                await asyncio.sleep(0.2)
                version = await asyncio.to_thread(put, country, tmp_path, *rows)
                if rows is first:
                    faulty = ("10 cards=6222 REFUSE:57", "20 cards=622202 REFUSE:92")
                    with pytest.raises(AssertionError, match="is never reached"):
                        await asyncio.to_thread(put, country, tmp_path, *faulty)
            await asyncio.to_thread(until, lambda: in_force(country) == {version}, 60, "the last version")
            before = said.copy()
            while said["92"] < before["92"] + 20:
                await asyncio.sleep(0.05)
            assert said["57"] <= before["57"] + len(tills)  # those that were under way
            done.set()
    assert set(said) == {"57", "92"}
