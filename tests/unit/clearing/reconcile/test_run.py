"""Comparing: each way in which a bank's file and our books can differ, and what a second look at them says."""

from datetime import timedelta
from pathlib import Path

import pytest

from switch.clearing.reconcile import run
from switch.clearing.reconcile.run import Partner, Side, compare
from switch.domain.errors import InputRefused
from switch.storage.pool import connect
from terminal_sim.host.day_file import Item
from tests.helpers.reconciling import (
    BANK,
    CITY,
    DECLINED,
    NOT_SENT,
    STOOD_IN,
    UNKNOWN,
    Leg,
    Pg,
    ask,
    compared,
    counts,
    findings,
    found_bank,
    pay_city,
    rows,
    send,
    tell,
)

pytestmark = pytest.mark.server


async def test_a_file_that_says_what_we_say_leaves_nothing_to_do(pg: Pg, tmp_path: Path) -> None:
    _, day, _ = await found_bank(pg)
    legs = [Leg(number, 100 + number) for number in range(1, 40)]
    others = [Leg(50, 1_000, STOOD_IN), Leg(51, 1, DECLINED), Leg(52, 2, NOT_SENT), Leg(53, 3, UNKNOWN)]
    others += [Leg(54, 500), Leg(55, 600), Leg(56, 4, UNKNOWN), Leg(57, 700)]
    await ask(pg, day, [*legs, *others])
    await tell(pg, day, others[4])
    reversal = await tell(pg, day, others[5])
    back = await tell(pg, day, others[7], 300, number=800_000)
    more = await tell(pg, day, others[7], 50, number=800_001)
    items = [leg.item(day) for leg in [*legs, others[0], others[5], others[6], others[7]]]
    items += [reversal, others[6].reversal(day), back, more]
    await send(pg, tmp_path, day, items)
    done = await compared(pg, day)
    # Undone: declined, not sent, unknown and left out by the bank; reversed and left out; reversed and shown; unknown and shown twice.
    assert counts(done) == {"match": (43, 43), "undone": (8, 4)}
    assert done.totals["match"].ours_fen == sum(leg.amount_fen for leg in legs) + 1_000 + 700 - 350
    assert (done.states, await findings(pg, day)) == ({}, [])


async def test_each_difference_has_its_outcome_and_both_sides_add_up(pg: Pg, tmp_path: Path) -> None:
    _, day, _ = await found_bank(pg)
    good, less, near, lacking, gone, other_card, other_reference, undone, stands, doubled = (
        Leg(number, 1_000) for number in range(1, 11)
    )
    stands = stands._replace(state=UNKNOWN)
    legs = [good, less, near, lacking, gone, other_card, other_reference, undone, stands, doubled]
    await ask(pg, day, legs)
    items = [
        good.item(day),
        less.item(day, amount_fen=950),
        near.item(day, amount_fen=1_002),
        gone.item(day, response="51"),
        other_card.item(day, pan="6228489999999999999"),
        other_reference.item(day, rrn="R99999999999"),
        undone.item(day),
        undone.reversal(day),
        stands.item(day),
        doubled.item(day),
        doubled.item(day),
        doubled.item(day, amount_fen=7),
        Leg(77, 4_444).item(day, pan="6228480000000000000"),
    ]
    await send(pg, tmp_path, day, items)
    done = await compared(pg, day, tolerance_fen=2, roll_days=0)
    assert counts(done) == {
        "match": (2, 2),
        "amount": (1, 1),
        "tolerated": (1, 1),
        "short": (1, 0),
        "status": (5, 6),
        "long": (0, 1),
        "duplicate": (0, 2),
    }
    assert await findings(pg, day) == [
        ("amount", "", "OPEN", 1_000, 950),
        ("duplicate", "", "OPEN", 0, 1_007),
        ("long", "", "OPEN", 0, 4_444),
        ("short", "", "OPEN", 1_000, 0),
        ("status", "stands with the partner alone", "OPEN", 0, 1_000),
        ("status", "stands with us alone", "OPEN", 1_000, 0),
        ("status", "stands with us alone", "OPEN", 1_000, 0),
        ("status", "card", "OPEN", 1_000, 1_000),
        ("status", "reference", "OPEN", 1_000, 1_000),
        ("tolerated", "", "TOLERATED", 1_000, 1_002),
    ]
    sums = Side(*(sum(column) for column in zip(*done.totals.values(), strict=True)))
    assert sums == Side(len(legs), 9_000, len(items), sum(item_fen(item) for item in items))


def item_fen(item: Item) -> int:
    return 0 if item.response != "00" else -item.amount_fen if item.mti == "0420" else item.amount_fen


async def test_another_card_is_an_error_at_once_and_no_tolerance_hides_it(pg: Pg, tmp_path: Path) -> None:
    _, day, _ = await found_bank(pg)
    legs = [Leg(1, 1_000), Leg(2, 2_000)]
    await ask(pg, day, legs)
    other = "6228489999999999999"
    await send(
        pg, tmp_path, day, [legs[0].item(day, pan=other), legs[1].item(day, pan=other, amount_fen=1_999)]
    )
    await compared(pg, day, tolerance_fen=5)
    assert await findings(pg, day) == [
        ("amount", "card", "OPEN", 2_000, 1_999),
        ("status", "card", "OPEN", 1_000, 1_000),
    ]


async def test_lines_that_are_even_one_by_one_and_come_twice_are_seen(pg: Pg, tmp_path: Path) -> None:
    _, day, _ = await found_bank(pg)
    legs = [Leg(number, 10) for number in range(1, 6)]
    await ask(pg, day, legs)
    await send(pg, tmp_path, day, [leg.item(day) for leg in (*legs, legs[2], legs[2])])
    done = await compared(pg, day)
    assert counts(done) == {"match": (5, 5), "duplicate": (0, 2)}
    assert await findings(pg, day) == [("duplicate", "", "OPEN", 0, 20)]


async def test_other_cities_records_are_known_by_card_counter_and_serial(pg: Pg, tmp_path: Path) -> None:
    _, day, _ = await found_bank(pg)
    items = [await pay_city(pg, day, 7, atc, 100 + atc) for atc in range(4)]
    items[1] = items[1]._replace(offline="0001" + "0" * 8)
    items[2] = items[2]._replace(pan="0133500100000000009")
    await send(pg, tmp_path, day, [*items[:3], items[3]._replace(amount_fen=1)], sender=CITY)
    done = await compared(pg, day, partner=CITY)
    assert counts(done) == {"match": (1, 1), "amount": (1, 1), "short": (2, 0), "long": (0, 2)}
    await ask(pg, day, [Leg(1, 100)])  # of the bank, and no business of the city's
    assert (await compared(pg, day, partner=CITY)).repeated


async def test_a_second_comparison_of_the_same_is_the_first(pg: Pg, tmp_path: Path) -> None:
    _, day, _ = await found_bank(pg)
    await ask(pg, day, [Leg(1, 10), Leg(2, 20)])
    await send(pg, tmp_path, day, [Leg(1, 10).item(day)])
    first, again = await compared(pg, day), await compared(pg, day)
    assert again == first._replace(repeated=True)
    assert await rows(pg, "SELECT count(*) FROM reconcile_run") == [(1,)]


async def test_what_comes_a_day_later_is_settled_and_what_does_not_is_an_error(
    pg: Pg, tmp_path: Path
) -> None:
    first, second, third = await found_bank(pg)
    late, lost, early, unknown, undone_late = (Leg(number, number * 100) for number in range(1, 6))
    undone_late = undone_late._replace(state=UNKNOWN)
    await ask(pg, first, [late, lost, undone_late])
    await ask(pg, second, [early])
    items = [early.item(second), unknown.item(first), undone_late.item(first)]
    await send(pg, tmp_path, first, items)
    done = await compared(pg, first)
    assert done.states == {"CARRIED": 5}
    await send(pg, tmp_path, second, [late.item(first), undone_late.reversal(first)])
    done = await compared(pg, second)
    assert (counts(done), done.left_open) == ({"shifted": (1, 2)}, 2)
    assert [found[2:] for found in await findings(pg, first)] == [
        ("SHIFTED", 0, 300),
        ("OPEN", 0, 400),
        ("SHIFTED", 100, 0),
        ("OPEN", 200, 0),
        ("SHIFTED", 0, 500),
    ]
    await send(pg, tmp_path, third, [lost.item(first)])
    assert counts(await compared(pg, third)) == {"long": (0, 1)}  # it rolls once
    assert ("short", "", "OPEN", 200, 0) in await findings(pg, first)


async def test_a_late_file_makes_the_day_behind_it_be_compared_again(pg: Pg, tmp_path: Path) -> None:
    first, second, third = await found_bank(pg)
    shifted, other = Leg(1, 100), Leg(2, 200)
    await ask(pg, first, [shifted])
    await ask(pg, second, [other])
    await send(pg, tmp_path, second, [other.item(second), shifted.item(first)])
    assert counts(await compared(pg, second)) == {"match": (1, 1), "long": (0, 1)}
    await send(pg, tmp_path, third, [])
    await compared(pg, third)
    assert [found[:3] for found in await findings(pg, second)] == [("long", "", "OPEN")]
    await send(pg, tmp_path, first, [])
    done = await compare(pg, Partner(BANK), first, "a tester")
    assert [one.day for one in done] == [first, second, third]
    assert counts(done[1]) == {"match": (1, 1), "shifted": (0, 1)}
    assert [found[:3] for found in await findings(pg, first)] == [("short", "", "SHIFTED")]
    assert [found[:3] for found in await findings(pg, second)] == [("long", "", "GONE")]
    assert [one.repeated for one in await compare(pg, Partner(BANK), first, "a tester")] == [True]


async def test_a_new_generation_replaces_the_comparison_and_keeps_what_was_found(
    pg: Pg, tmp_path: Path
) -> None:
    _, day, _ = await found_bank(pg)
    kept, cured = Leg(1, 100), Leg(2, 200)
    await ask(pg, day, [kept, cured])
    await send(pg, tmp_path, day, [kept.item(day, amount_fen=99), cured.item(day, amount_fen=201)])
    await compared(pg, day)
    numbers = await rows(pg, "SELECT difference_no, ours_fen FROM reconcile_difference ORDER BY ours_fen")
    await send(pg, tmp_path, day, [kept.item(day, amount_fen=99), cured.item(day)], sequence=2)
    done = await compared(pg, day)
    assert (done.repeated, done.states) == (False, {"OPEN": 1})
    assert (
        await rows(pg, "SELECT difference_no, ours_fen FROM reconcile_difference ORDER BY ours_fen")
        == numbers
    )
    assert [found[2] for found in await findings(pg, day)] == ["OPEN", "GONE"]
    assert await rows(pg, "SELECT count(*) FROM reconcile_finding GROUP BY run_no ORDER BY run_no") == [
        (2,),
        (1,),
    ]
    await send(pg, tmp_path, day, [kept.item(day), cured.item(day, amount_fen=201)], sequence=3)
    await compared(pg, day)
    assert [found[2] for found in await findings(pg, day)] == ["GONE", "OPEN"]


async def test_what_cannot_be_compared_is_refused_and_says_why(
    pg: Pg, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, day, _ = await found_bank(pg)
    with pytest.raises(InputRefused, match="no file of 01020000 about"):
        await compared(pg, day)
    with pytest.raises(InputRefused, match="is not closed yet"):
        await compared(pg, day + timedelta(days=30))
    await send(pg, tmp_path, day, [Leg(1, 1).item(day), Leg(2, 2).item(day)])
    async with await connect(postgres_url) as other:
        await other.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (run.PARTNER_LOCK, BANK))
        with pytest.raises(InputRefused, match="is being compared by another process"):
            await compared(pg, day)
        await other.execute("SELECT pg_advisory_unlock_all()")
    monkeypatch.setattr(run, "DIFFERENCES_MAX", 1)
    with pytest.raises(InputRefused, match="2 items differ"):
        await compared(pg, day)
    monkeypatch.undo()
    ((table,),) = await rows(pg, "SELECT max(relname) FROM pg_class WHERE relname ~ '^partner_line_[0-9]+$'")
    await pg.execute(f"TRUNCATE {table}".encode())  # what a crash does to it
    with pytest.raises(InputRefused, match="take the file again"):
        await compared(pg, day)
    await send(pg, tmp_path, day, [Leg(1, 1).item(day), Leg(2, 2).item(day)])
    assert counts(await compared(pg, day)) == {"long": (0, 2)}
