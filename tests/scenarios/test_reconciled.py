"""A day with a real bank host, unknown outcomes and loads in doubt, against the file that the bank writes from its own books; then against a spoilt one."""

import asyncio
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from switch.domain.transactions import AccountKind
from terminal_sim.frames import CardData
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.day_file import Item, booked_items, write_file
from terminal_sim.host.script import read_script
from terminal_sim.kiosk import From
from tests.helpers.banked import BANK, OPENING_FEN, Banked, banked, buy_and_undo, host_of, rows
from tests.helpers.clearing_day import CENTRE
from tests.helpers.switch_process import cardswitch
from tests.helpers.till import Seen, Till
from tests.helpers.town import Town, chip_of
from tests.scenarios.test_loads import Counter

pytestmark = [pytest.mark.server, pytest.mark.slow]

OF_BANK = AccountKind.BANK


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    stand_in = {
        "stand_in_amount_fen": 500,
        "stand_in_outstanding_fen": 4_000,
        "stand_in_outstanding_count": 9,
    }
    with banked(built_town.copy(tmp_path_factory.mktemp("reconciled")), **stand_in) as made:
        partner = {"institution": BANK, "since": "2024-01-01"}
        made.town.environment["CARDSWITCH_RECONCILE__PARTNERS"] = json.dumps([partner])
        yield made


def reconcile(city: Banked, *words: str) -> Any:
    """`cardswitch reconcile … --json`, whatever it finds."""
    said = cardswitch(
        "reconcile",
        *words,
        "--json",
        environment=city.town.environment,
        folder=city.town.folder,
        statuses=(0, 1),
    )
    return json.loads(said)


async def live(city: Banked, books: Path, card: CardData) -> int:
    """Everything that can become of a question; the number of the load that is torn in the end."""
    till = await Till(city.town.new_terminal(), Seen(), city.one.line).sign_on()
    counter = await Counter.of(city, Seen())
    chip = chip_of(card.pan)
    assert await till.code(till.pos.purchase(card, 499, account=OF_BANK)) == "00", "stood in"
    moods = read_script("normal*5,silent,normal*20")
    async with host_of(city, "bank", [card], moods, books=books):
        await buy_and_undo(till, card)
        assert await till.code(till.pos.purchase(card, OPENING_FEN, account=OF_BANK)) == "51"
        assert await till.code(till.pos.purchase(card, 800, account=OF_BANK)) == "68"
        await counter.whole(chip, card, 5_000, source=From.BOUND_BANK)
        undone, answer = await counter.load(chip, card, 900, From.BOUND_BANK)
        assert answer.fields[39] == "00"
        assert await counter.code(counter.pos.reversal(undone, "98")) == "00"
        torn, answer = await counter.load(chip, card, 600, From.BOUND_BANK)
        assert await counter.code(counter.pos.confirm(torn, answer, 0, None)) == "00"
        await told_everything(city)
    ((load,),) = rows(city, "SELECT entry_no FROM purse_load WHERE state = 4")
    return int(load)


async def told_everything(city: Banked) -> None:
    async with asyncio.timeout(60):
        while rows(city, "SELECT 1 FROM host_outbox WHERE host = 'bank' AND result IS NULL"):
            await asyncio.sleep(0.1)


def close(city: Banked) -> date:
    city.town.run("close", "--yes")
    ((day,),) = rows(city, "SELECT max(business_date) FROM business_day WHERE state = 2")
    assert isinstance(day, date)
    return day


def taken(city: Banked, day: date, items: list[Item], sequence: int) -> None:
    path = write_file(city.town.folder, BANK, CENTRE, day, items, sequence=sequence)
    (receipt,) = reconcile(city, "take", str(path))
    assert (receipt["status"], receipt["reason"]) == ("00", "")


def compared(city: Banked, day: date) -> dict[str, Any]:
    done: dict[str, Any] = reconcile(city, "run", "--partner", BANK, "--date", str(day))[0]
    return done


async def test_a_day_with_a_bank_is_even_and_what_its_file_gets_wrong_is_found(
    city: Banked, tmp_path: Path
) -> None:
    card, books = city.town.new_card("loaded"), tmp_path / "books.jsonl"
    load = await live(city, books, card)
    day = close(city)
    items = booked_items(books, HostBook([Account(card.pan, OPENING_FEN)]))
    taken(city, day, items, 1)
    done = compared(city, day)
    # Both sides: stood in, 100.00, 20.00 and its void, 30.00 and its refund, two loads. Undone: reversed, unknown, a load sent back, declined.
    assert set(done["totals"]) == {"match", "undone"}
    assert done["totals"]["match"]["ours_count"] == 8
    assert done["totals"]["match"]["ours_fen"] == 499 + 10_000 + 3_000 - 1_234 + 5_000 + 600
    assert done["states"] == {"OPEN": 1}
    (waiting,) = reconcile(city, "list")
    assert (waiting["outcome"], waiting["load"], waiting["theirs_fen"]) == ("load", load, 600)
    assert "debited (difference" in city.town.run("loads", "show", str(load))

    by_amount = {item.amount_fen: item for item in items if item.mti == "0200"}
    spoilt = [item for item in items if item.amount_fen not in (600, 3_000, 10_000)]
    spoilt += [by_amount[10_000]._replace(amount_fen=9_999), by_amount[5_000]]
    spoilt += [by_amount[3_000]._replace(response="51"), by_amount[10_000]._replace(trace=1, amount_fen=77)]
    taken(city, day, spoilt, 2)
    done = compared(city, day)
    found = {outcome: side["theirs_count"] or side["ours_count"] for outcome, side in done["totals"].items()}
    assert found.keys() == {"match", "undone", "amount", "status", "short", "long", "duplicate"}
    assert [found[name] for name in ("amount", "status", "short", "long", "duplicate")] == [1, 1, 1, 1, 1]
    listed = {one["outcome"]: one for one in reconcile(city, "list")}
    assert listed.keys() == {
        "amount",
        "status",
        "short",
        "long",
        "duplicate",
    }  # the load is among the short now
    assert listed["short"]["load"] == load
    assert listed["amount"]["terminal"] == "batch open"

    second = close(city)
    taken(city, second, [], 1)
    compared(city, second)
    people = ("--actor", "li wei", "--checker", "wang fang", "--reason", "the bank says so")
    number = str(listed["short"]["difference"])
    done = reconcile(city, "resolve", number, "--as", "returned", *people)
    assert done["state"] == "CLOSED"
    assert rows(city, "SELECT state FROM purse_load WHERE entry_no = %s", load) == [(6,)]
    long = str(listed["long"]["difference"])
    assert reconcile(city, "resolve", long, "--as", "suspense", *people)["state"] == "SUSPENSE"
    states = {one["day"]: one["state"] for one in reconcile(city, "list", "--expected")}
    assert (states[str(day)], states[str(second)]) == ("compared", "compared")
