"""A terminal's batch is frozen, summed, compared and closed: by its own figures or by ours, once, and after everything in flight."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from switch.domain.decisions import Outcome
from switch.domain.money import Fen
from switch.domain.transactions import BatchEnd, Detail, DetailUpload, GroupTotals, Kind, Settlement
from switch.ledger.days import cut_over, ensure_days, open_day
from switch.ledger.gate import GATE, wait_for_all
from switch.ledger.terminal_batches import BatchMessage, TerminalBatches
from switch.operations.audit import CHECKS
from switch.storage.pool import connect
from tests.helpers.offline import Fetch, build, fetcher

pytestmark = pytest.mark.server

NOTHING = GroupTotals(Fen(0), 0, Fen(0), 0)
_stans = itertools.count(500)
_entries = itertools.count(1_000_000)


@pytest.fixture
async def town(postgres_url: str) -> str:
    await build(postgres_url)
    return postgres_url


@pytest.fixture
def fetch(town: str) -> Fetch:
    return fetcher(town)


class Desk:
    """A writer of one process, and a way to wait for answers."""

    def __init__(self, writer: TerminalBatches) -> None:
        self.writer = writer
        self.task = asyncio.create_task(writer.run())

    def send(
        self, content: Settlement | DetailUpload | BatchEnd, **changes: Any
    ) -> "asyncio.Future[Outcome | None]":
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        assert self.writer.submit(message(content, **changes)._replace(done=future.set_result))
        return future

    async def ask(self, content: Settlement | DetailUpload | BatchEnd, **changes: Any) -> Outcome:
        outcome = await self.send(content, **changes)
        assert outcome is not None
        return outcome


def message(content: Settlement | DetailUpload | BatchEnd, **changes: Any) -> BatchMessage:
    stan = changes.get("stan") or next(_stans)
    made = BatchMessage(
        terminal_no=1,
        merchant_no=1,
        batch_no=1,
        stan=stan,
        digest=hash((content, stan)).to_bytes(32, signed=True),
        generation=1,
        since=date.today() - timedelta(days=2),  # noqa: DTZ011  any early day does
        content=content,
        done=lambda _: None,
    )
    return made._replace(**changes)


OpenDesk = Callable[..., Desk]


@pytest.fixture
async def open_desk(town: str) -> AsyncIterator[OpenDesk]:
    desks: list[Desk] = []

    def open_one(**changes: Any) -> Desk:
        arguments: dict[str, Any] = {"connect": lambda: connect(town), "shards": 2} | changes
        desk = Desk(TerminalBatches(**arguments))
        desks.append(desk)
        return desk

    yield open_one
    for desk in desks:
        desk.writer.stop()
        await desk.task


@pytest.fixture
async def desk(open_desk: OpenDesk) -> Desk:
    return open_desk()


def book(fetch: Fetch, stan: int, kind: Kind, amount_fen: int, **columns: Any) -> None:
    """A journal row as the ledger would write it."""
    row = {
        "shard": 1,
        "terminal_no": 1,
        "batch_no": 1,
        "stan": stan,
        "class": 1 if kind is Kind.REVERSAL else 0,
        "entry_no": next(_entries),
        "merchant_no": 1,
        "kind": int(kind),
        "amount_fen": amount_fen,
        "answer": "00",
        "rrn": "0" * 12,
        "digest": bytes(32),
        "pan": "3133500100000000012",
    } | columns
    names = ", ".join(row)
    fetch(
        f"INSERT INTO journal ({names}, business_date, decided_at)"
        f" SELECT {', '.join(['%s'] * len(row))}, business_date, now() FROM business_day"
        " WHERE begins_at <= now() AND now() < ends_at RETURNING 1",
        *row.values(),
    )


def some_business(fetch: Fetch) -> Settlement:
    """Purchases in both shards, one of them reversed, a void, a refund, a decline, an upload; and what it comes to."""
    book(fetch, 1, Kind.PURCHASE, 1000)
    book(fetch, 2, Kind.PURCHASE, 500, shard=0)
    book(fetch, 3, Kind.PURCHASE, 70)
    book(fetch, 3, Kind.REVERSAL, 70)
    book(fetch, 4, Kind.VOID, 500, shard=0)
    book(fetch, 5, Kind.REFUND, 30)
    book(fetch, 6, Kind.PURCHASE, 99_999, answer="51")
    book(fetch, 7, Kind.BALANCE, 0)
    book(fetch, 8, Kind.PURCHASE, 5, batch_no=2)
    results = bytes.fromhex("03") + b"\0\0\0\x0110" + b"\0\0\0\x0204" + b"\0\0\0\x0302"
    extra = b'{"62":"%s","head":1,"n":3,"taken":2}' % results.hex().encode()
    book(fetch, 9, Kind.UPLOAD, 450, extra=extra)
    return Settlement(GroupTotals(Fen(1500), 2, Fen(530), 2), GroupTotals(Fen(450), 2, Fen(0), 0))


def flags(outcome: Outcome) -> str:
    assert outcome.answer == "00", outcome.answer
    return outcome.field48[30] + outcome.field48[61]


def state(fetch: Fetch) -> Any:
    return fetch("SELECT state FROM terminal_batch WHERE terminal_no = 1 AND batch_no = 1")[0][0]


async def test_a_batch_that_balances_is_answered_1_and_closed_by_207(desk: Desk, fetch: Fetch) -> None:
    outcome = await desk.ask(some_business(fetch))
    assert outcome.field48 == "00000000150000200000000053000210000000004500020000000000000001"
    assert outcome.clearing_date is not None
    assert state(fetch) == 1
    end = await desk.ask(BatchEnd(True, 3))
    assert (end.answer, end.field48) == ("00", "0003")
    assert state(fetch) == 2
    assert fetch("SELECT count(*) FROM terminal_batch_difference") == [(0,)]
    assert fetch("SELECT kind FROM journal WHERE stan >= 500 ORDER BY stan") == [(21,), (23,)]


@pytest.mark.parametrize("count", [2, 3])
async def test_a_207_may_count_the_records_taken_or_all_that_were_sent(
    desk: Desk, fetch: Fetch, count: int
) -> None:
    await desk.ask(some_business(fetch))
    assert (await desk.ask(BatchEnd(True, count))).answer == "00"


async def test_a_207_with_records_that_never_came_or_without_balance_is_95_and_closes_nothing(
    desk: Desk, fetch: Fetch
) -> None:
    claim = some_business(fetch)
    early = await desk.ask(BatchEnd(True, 3))
    assert early.answer == "12"
    await desk.ask(claim)
    assert (await desk.ask(BatchEnd(True, 4))).answer == "95"
    assert state(fetch) == 1
    assert (await desk.ask(BatchEnd(True, 3))).answer == "00"


async def test_groups_are_flagged_apart_and_a_202_closes_with_our_figures_and_a_report(
    desk: Desk, fetch: Fetch
) -> None:
    claim = some_business(fetch)
    accounts = claim.accounts._replace(debit_fen=Fen(1540), debit_count=3)
    outcome = await desk.ask(claim._replace(accounts=accounts))
    assert flags(outcome) == "21"
    assert outcome.field48[:12] == "000000001540"
    assert (await desk.ask(BatchEnd(True, 3))).answer == "95"
    card = "03133500100000000012"
    details = (
        Detail("00", 1, card, Fen(1040)),
        Detail("00", 2, card, Fen(500)),
        Detail("00", 77, card, Fen(40)),
        Detail("00", 4, "03133500100000000020", Fen(500)),
    )
    assert (await desk.ask(DetailUpload(details))).answer == "00"
    end = await desk.ask(BatchEnd(False, 9))
    assert (end.answer, end.field48) == ("00", "0009")
    assert state(fetch) == 2
    report = fetch("SELECT matter, stan, claimed, booked FROM terminal_batch_difference ORDER BY line")
    assert report == [
        ("TOTALS", None, "000000001540003000000000530002", "000000001500002000000000530002"),
        ("AMOUNT", 1, "1040", "1000"),
        ("CARD", 4, "another card", "see journal"),
        ("NOT_THERE", 5, "", "30"),
        ("NOT_HERE", 77, "40", ""),
        ("COUNT", None, "9", "4"),
    ]
    ((computed,),) = fetch("SELECT computed FROM terminal_batch WHERE terminal_no = 1")
    assert computed[:12] == "000000001500"


async def test_a_count_beyond_three_digits_cannot_be_decided(desk: Desk, fetch: Fetch) -> None:
    results = bytes(2).hex().encode()
    book(fetch, 9, Kind.UPLOAD, 100_000, extra=b'{"62":"%s","head":2,"n":1000,"taken":1000}' % results)
    claim = Settlement(NOTHING, GroupTotals(Fen(100_000), 999, Fen(0), 0))
    assert flags(await desk.ask(claim)) == "13"


async def test_repeats_get_the_stored_answer_and_a_second_settlement_is_90(
    desk: Desk, open_desk: OpenDesk, fetch: Fetch
) -> None:
    claim = some_business(fetch)
    first = await desk.ask(claim, stan=800)
    again = await asyncio.gather(*(one.ask(claim, stan=800) for one in (desk, open_desk(), desk)))
    assert again == [first] * 3
    assert (await desk.ask(claim, stan=801)).answer == "90"
    assert (await desk.ask(claim, stan=800, digest=bytes(32))).answer == "94"
    end = await desk.ask(BatchEnd(True, 3), stan=802)
    assert await open_desk().ask(BatchEnd(True, 3), stan=802) == end
    assert (await desk.ask(BatchEnd(True, 3), stan=803)).answer == "77"
    assert (await desk.ask(claim, stan=800)) == first


async def test_a_wrong_batch_is_77_and_replaced_keys_are_a0(desk: Desk, fetch: Fetch) -> None:
    claim = Settlement(NOTHING, NOTHING)
    assert (await desk.ask(claim, batch_no=9, since=None)).answer == "77"
    assert (await desk.ask(claim, generation=0)).answer == "A0"
    assert (await desk.ask(DetailUpload((Detail("00", 1, "0" * 20, Fen(1)),)))).answer == "12"
    assert state(fetch) == 0


async def test_a_settlement_waits_for_bookings_that_hold_their_gate(
    desk: Desk, town: str, fetch: Fetch
) -> None:
    async with await connect(town) as booking:
        await booking.execute("BEGIN")
        await booking.execute("SELECT pg_advisory_xact_lock_shared(%s, 0)", (GATE,))
        asked = desk.send(Settlement(GroupTotals(Fen(77), 1, Fen(0), 0), NOTHING))
        while state(fetch) != 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not asked.done()
        await booking.execute(
            "INSERT INTO journal (shard, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, amount_fen, answer,"
            " rrn, digest, business_date, decided_at)"
            " SELECT 0, 1, 1, 40, 0, 40, 1, 1, 77, '00', '000000000040', %s, business_date, now() FROM business_day"
            " WHERE begins_at <= now() AND now() < ends_at",
            (bytes(32),),
        )
        await booking.execute("COMMIT")
    outcome = await asked
    assert outcome is not None
    assert flags(outcome) == "11"


async def test_many_terminals_settle_at_once_in_two_processes(open_desk: OpenDesk, fetch: Fetch) -> None:
    one, two = open_desk(), open_desk()
    for terminal_no in range(1, 9):
        book(fetch, 1, Kind.PURCHASE, terminal_no, terminal_no=terminal_no)
    asked = [
        office.send(
            Settlement(GroupTotals(Fen(terminal_no), 1, Fen(0), 0), NOTHING),
            terminal_no=terminal_no,
            stan=900,
        )
        for terminal_no in range(1, 9)
        for office in (one, two)
    ]
    outcomes = await asyncio.gather(*asked)
    assert [flags(outcome) for outcome in outcomes if outcome is not None] == ["11"] * 16
    assert outcomes[0::2] == outcomes[1::2]


@pytest.mark.parametrize("cut_at", range(1, 5))
async def test_a_connection_cut_at_any_commit_leaves_one_settlement_and_one_end(
    open_desk: OpenDesk, town: str, fetch: Fetch, cut_at: int
) -> None:
    """Each COMMIT in turn is cut before it is sent: freeze, settlement, closing, end."""
    commits = 0

    async def connect_badly() -> psycopg.AsyncConnection[Any]:
        connection = await connect(town)
        execute = connection.execute

        async def execute_or_cut(query: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal commits
            if query == "COMMIT":
                commits += 1
                if commits == cut_at:
                    raise psycopg.OperationalError("cut by the test")
            return await execute(query, *arguments, **options)

        connection.execute = execute_or_cut  # type: ignore[method-assign]  # the one fault of this test
        return connection

    desk = open_desk(connect=connect_badly)
    assert flags(await desk.ask(some_business(fetch))) == "11"
    assert (await desk.ask(BatchEnd(True, 3))).answer == "00"
    assert commits > cut_at
    assert fetch("SELECT kind, count(*) FROM journal WHERE kind > 20 GROUP BY 1 ORDER BY 1") == [
        (21, 1),
        (23, 1),
    ]


async def test_a_half_finished_settlement_and_end_are_taken_up_by_a_new_message(
    desk: Desk, fetch: Fetch
) -> None:
    claim = some_business(fetch)
    fetch("UPDATE terminal_batch SET state = 1 WHERE terminal_no = 1 RETURNING 1")  # died after the freeze
    assert flags(await desk.ask(claim)) == "11"
    fetch("UPDATE terminal_batch SET state = 2 WHERE terminal_no = 1 RETURNING 1")  # died after closing
    assert (await desk.ask(BatchEnd(True, 3))).answer == "00"
    assert fetch("SELECT closed_at IS NOT NULL FROM terminal_batch WHERE terminal_no = 1") == [(True,)]


@pytest.mark.parametrize("half", ["settlement", "end"])
async def test_keys_that_come_into_force_between_the_halves_are_no_a0_for_what_has_changed(
    desk: Desk, fetch: Fetch, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other_keys(connection: Any, shards: Any) -> None:
        await wait_for_all(connection, shards)
        fetch(
            "UPDATE terminal_session SET generation = 9, last_generation = 9 WHERE terminal_no = 1 RETURNING 1"
        )

    claim = some_business(fetch)
    asked: list[Settlement | BatchEnd] = [claim]
    if half == "end":
        assert flags(await desk.ask(claim)) == "11"
        asked = [BatchEnd(True, 3)]
    monkeypatch.setattr("switch.ledger.terminal_batches.wait_for_all", other_keys)
    assert (await desk.ask(asked[0])).answer == "00"
    assert state(fetch) == (2 if half == "end" else 1)
    assert (await desk.ask(asked[0])).answer == "A0", "and old keys are old"


@pytest.mark.parametrize("both", [True, False])
async def test_the_audit_knows_which_group_differs_also_when_both_do_alike(
    desk: Desk, fetch: Fetch, town: str, both: bool
) -> None:
    wrong = GroupTotals(Fen(100), 1, Fen(0), 0)
    assert flags(await desk.ask(Settlement(wrong if both else NOTHING, wrong))) == ("22" if both else "12")
    assert (await desk.ask(BatchEnd(False, 0))).answer == "00"
    (check,) = (check for check in CHECKS if check.name == "batch_differences")
    assert fetch("SELECT count(*) FROM terminal_batch_difference") == [(1 + both,)]
    days = {"first": date.min, "last": date.max}
    with psycopg.connect(town, autocommit=True) as connection:
        assert connection.execute(check.query.encode(), days).fetchall() == []


async def test_days_that_were_ended_by_hand_ahead_of_the_calendar_still_balance(
    desk: Desk, fetch: Fetch, town: str
) -> None:
    connection = await connect(town)
    for _ in range(5):
        await ensure_days(connection)
        current = await open_day(connection)
        assert current is not None
        await cut_over(connection, current.day, lead_s=0.0)
    await connection.close()
    claim = some_business(fetch)
    one = message(claim)
    futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
    for future in futures:
        assert desk.writer.submit(one._replace(done=future.set_result))
    first, repeat = await asyncio.gather(*futures)
    assert flags(first) == "11"
    assert repeat == first


async def test_a_lock_that_nobody_gives_back_is_waited_for_within_bounds(
    open_desk: OpenDesk, fetch: Fetch, town: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk(retry_for_s=0.5)
    monkeypatch.setattr(desk.writer, "_write_max_s", 0.3)
    holder = await connect(town)
    await holder.execute("BEGIN")
    await holder.execute("SELECT 1 FROM terminal_session WHERE terminal_no = 1 FOR UPDATE")
    waiting = [desk.send(DetailUpload((Detail("00", 1, "0" * 20, Fen(1)),))) for _ in range(3)]
    async with asyncio.timeout(120):
        assert await asyncio.gather(*waiting) == [None] * 3
        await holder.close()
        monkeypatch.setattr(desk.writer, "_write_max_s", 60.0)  # the next one must be written
        assert (await desk.ask(some_business(fetch))).answer == "00"
