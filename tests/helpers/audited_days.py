"""Three business days of the city of `audited_city`: two that are closed and one that is open. Everything that the audit looks at has rows."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from switch.domain.decisions import Outcome
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import (
    Balance,
    BatchEnd,
    Completion,
    CompletionVoid,
    Detail,
    DetailUpload,
    GroupTotals,
    Kind,
    LoadSource,
    Original,
    PreAuthorisationVoid,
    Purchase,
    Refund,
    Reversal,
    Settlement,
    Void,
)
from switch.keys.software_vault import SoftwareVault
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from switch.ledger.load_states import LoadState
from terminal_sim.records import Phase, RecordKind
from tests.helpers import audited_interop
from tests.helpers.audited_city import CARDS, INTEROP, MEDICAL, ONLINE, City, found
from tests.helpers.audited_disputes import second_day_of_cases, third_day_of_cases
from tests.helpers.city_hosts import Hosts, first_day_at_hosts, says, second_day_at_hosts
from tests.helpers.depots import answer_file, depot_file
from tests.helpers.offline import CITY, Ride, pan_of, upload

STRAY = 77  # a card of ours that the registry does not know


async def first_day(city: City) -> dict[str, Any]:
    """Purchases with all that can follow them, rides of every kind, two batches that end. Returns what later days refer to."""
    bought = {
        "refunded later": await city.buy(1, 3_000),
        "voided": await city.buy(2, 1_999),
        "reversed": await city.buy(3, 777),
        "partly refunded": await city.buy(4, 5_000, terminal_no=7),
        "void reversed": await city.buy(5, 400),
        "medical": await city.buy(6, 1_250, account=MEDICAL, terminal_no=7),
        "other city": await city.buy(7, 10_000, terminal_no=8),
    }
    for card in range(1, CARDS + 1):
        await city.buy(card, 100 + card, terminal_no=2)
    _, declined = await city.buy(8, 9_999_999)
    assert declined.answer == "51"
    await city.ask(Balance(CardNumber(pan_of(9)), ONLINE, None, "051"), 9)
    for outcome in (
        await city.undo(Void, 2, 1_999, bought["voided"]),
        await city.undo(Reversal, 3, 777, bought["reversed"]),
        await city.undo(Refund, 4, 1_000, bought["partly refunded"], terminal_no=7),
        await city.undo(Refund, 4, 500, bought["partly refunded"], terminal_no=7),
        await city.undo(Refund, 7, 2_500, bought["other city"], terminal_no=8),
    ):
        assert outcome[1].answer == "00", outcome
    voided = await city.undo(Void, 5, 400, bought["void reversed"])
    assert (await city.undo(Reversal, 5, 400, voided, was=Kind.VOID))[1].answer == "00"
    lone = Reversal(
        CardNumber(pan_of(10)),
        ONLINE,
        Fen(55),
        Original(1, 9_000, 1, 1),
        Kind.PURCHASE,
        "98",
        "051",
        "000000",
    )
    assert (await city.ask(lone, 10, stan=9_000))[1].answer == "25"
    late = Purchase(CardNumber(pan_of(10)), ONLINE, Fen(55), None, "051")
    assert (await city.ask(late, 10, stan=9_000))[1].answer == "22"
    bought |= await _holds(city)
    bought |= await _loads(city)
    hosts = Hosts(city)
    bought["hosts"] = await first_day_at_hosts(hosts)
    await _rides(city)
    await _batches(city)
    bought["foreign"] = await _depot(city)
    await city.charge()
    await city.pay(Booking(Event.MONEY_UNEXPLAINED, 4_321, 0, 0, "statement 1/7", "nobody knows whose"))
    late = await hosts.end(12, bought["hosts"]["late"], says(), terminal_no=8)
    assert late[1].answer == "90", "the batch is counted"
    return bought


async def _holds(city: City) -> dict[str, Any]:
    """Pre-authorisations with every end that there is, in a batch that stays open (terminal 7) and in one that ends (2)."""

    async def good(coming: Any) -> tuple[int, Outcome]:
        answer: tuple[int, Outcome] = await coming
        assert answer[1].answer == "00", answer
        return answer

    of = {name: await good(city.hold(8, 1_000 + n, terminal_no=7)) for n, name in enumerate("abcdefgh")}
    await good(city.follow(Completion, 8, 1_150, of["a"], terminal_no=7))
    await good(city.follow(Completion, 8, 700, of["b"], terminal_no=7, advice=True))
    await good(city.follow(PreAuthorisationVoid, 8, 1_002, of["c"], terminal_no=7))
    completed = {name: await good(city.follow(Completion, 8, 900, of[name], terminal_no=7)) for name in "def"}
    await good(city.follow(CompletionVoid, 8, 900, completed["d"], terminal_no=7))
    await good(city.undo(Reversal, 8, 900, completed["e"], terminal_no=7, was=Kind.COMPLETION))
    voided = await good(city.follow(CompletionVoid, 8, 900, completed["f"], terminal_no=7))
    await good(city.undo(Reversal, 8, 900, voided, terminal_no=7, was=Kind.COMPLETION_VOID))
    await good(city.undo(Reversal, 8, 1_006, of["g"], terminal_no=7, was=Kind.PRE_AUTHORISATION))
    ended = await good(city.hold(9, 2_000, terminal_no=2))
    await good(city.follow(Completion, 9, 2_000, ended, terminal_no=2))
    return {"held": of["h"], "completed": completed["f"]}


async def _loads(city: City) -> dict[str, Any]:
    """Loads with every end that there is, some in a batch that ends (terminals 2 and 8)."""

    async def good(coming: Any, answer: str = "00") -> tuple[int, Outcome]:
        told: tuple[int, Outcome] = await coming
        assert told[1].answer == answer, told
        return told

    first = await good(city.load(1, 5_000, 0, terminal_no=8))
    await good(city.confirm(1, 5_000, 0, first, terminal_no=8))
    undone = await good(city.load(1, 600, 1, terminal_no=8))
    await good(city.unload(1, 600, undone, terminal_no=8))
    own = await good(city.load(2, 700, 0, source=LoadSource.ONLINE, terminal_no=2))
    await good(city.confirm(2, 700, 0, own, source=LoadSource.ONLINE, terminal_no=2))
    await good(city.load(2, 800, 1, source=LoadSource.ONLINE))
    await good(city.load(2, 810, 1))  # the same counter: the one before goes back
    await good(city.load(2, 820, 2))  # a higher one: it was credited
    torn = await good(city.load(3, 900, 0))
    await good(city.confirm(3, 900, 0, torn, good=None))
    await good(city.load(3, 910, 0))  # not credited by the torn one
    wrong = await good(city.load(4, 1_000, 0))
    await good(city.confirm(4, 1_000, 0, wrong, good=False))
    late = await good(city.load(5, 1_100, 0, source=LoadSource.ONLINE))
    await good(city.unload(5, 1_100, late))
    await good(city.confirm(5, 1_100, 0, late, source=LoadSource.ONLINE))
    again = await good(city.load(6, 1_200, 0))
    await good(city.unload(6, 1_200, again))
    await good(city.confirm(6, 1_200, 0, again))
    await good(city.load(6, 1_210, 1))  # proves that the card took what was reversed
    await good(city.load(9, 300, None, terminal_no=2))
    topped = await good(city.load(9, 310, None))
    await good(city.unload(9, 310, topped))
    await good(city.load(9, 99_999_999, 0), "61")
    gone = await good(city.load(10, 1_300, 0))
    await good(city.confirm(10, 1_300, 0, gone, good=None))
    return {"decided": gone, "wrong": wrong}


async def _rides(city: City) -> None:
    balance_fen = dict.fromkeys(range(1, CARDS + 1), 100000)

    def ride(card: int, atc: int, fen: int = 200, **changes: Any) -> Ride:
        balance_fen[card] -= fen
        return Ride(card=card, atc=atc, amount_fen=fen, balance_fen=balance_fen[card] + fen, **changes)

    doubled = Ride(card=1, atc=5, amount_fen=300, psam_serial=900_001).pack()
    await city.bring(*(ride(card, 0) for card in range(1, 6)))
    await city.bring(*(ride(card, 1, 150, terminal_no=8) for card in range(1, 4)), terminal_no=8)
    await city.send(upload(doubled))
    await city.send(
        upload(doubled, Ride(card=1, atc=5, amount_fen=301).pack(), b"not a record".ljust(96, b"\0"))
    )
    grey = ride(2, 2, 250, kind=RecordKind.GREY)  # evidence comes on the second day
    unused = Ride(card=3, atc=2, amount_fen=260, balance_fen=balance_fen[3], kind=RecordKind.GREY)
    waiting = Ride(card=4, atc=9, amount_fen=270, balance_fen=balance_fen[4], kind=RecordKind.GREY)
    await city.bring(grey, unused, waiting)
    city_issuer = bytes.fromhex(f"{CITY}FFFFFFFF")
    await city.bring(
        Ride(card=50, issuer=city_issuer), Ride(card=STRAY, atc=3), Ride(card=6, atc=0, tac=b"wrng")
    )
    await city.bring(
        Ride(card=6, atc=8, kind=RecordKind.LOCKED, amount_fen=0), Ride(card=6, psam=b"\x99" * 6)
    )
    await city.fold()


async def _depot(city: City) -> list[bytes]:
    """A depot's file: trips, refusals of every place, and other cities' cards, whose records are returned; then one that is not whole."""

    def ride(
        card: int, atc: int, fen: int, phase: Phase, at: str, entered: str = "0000", **more: Any
    ) -> bytes:
        return Ride(
            card=card,
            atc=atc,
            amount_fen=fen,
            phase=phase,
            station=at,
            entry_station=entered,
            line="0003",
            **more,
        ).pack()

    city_issuer = bytes.fromhex(f"{CITY}FFFFFFFF")
    foreign = [Ride(card=card, issuer=city_issuer, line="0004").pack() for card in (51, 52, 53)]
    records = [
        ride(8, 0, 0, Phase.ENTRY, "0101"),
        ride(8, 1, 300, Phase.EXIT, "0107", "0101", full_fare_fen=500, transfer=True),
        ride(8, 2, 0, Phase.ENTRY, "0102"),
        ride(9, 0, 0, Phase.ENTRY, "0101"),
        ride(9, 1, 1_000, Phase.SUPPLEMENT, "0101", "0101"),
        ride(9, 2, 0, Phase.ENTRY, "0101"),
        ride(10, 0, 120, Phase.NONE, "0000", full_fare_fen=200),
        Ride(card=10, psam=b"\x98" * 6).pack(),
        Ride(card=10, atc=7, tac=b"wrng").pack(),
        *foreign,
    ]
    receipt = await city.take(depot_file(city.folder, records, date.today()))  # noqa: DTZ011  the sender's own day
    assert {code: count for code, (count, _) in receipt.results.items()} == {
        "10": 7,
        "02": 1,
        "01": 1,
        "11": 3,
    }
    broken = depot_file(city.folder, records[:1], date.today(), sequence=2)  # noqa: DTZ011
    broken.write_bytes(broken.read_bytes()[:-9])
    assert (await city.take(broken)).status == "02"
    await city.fold()
    return foreign


async def _answers(city: City, foreign: list[bytes]) -> None:
    """The other city pays for one card, refuses another, says the first twice, and names a record that was never forwarded."""
    said = [(foreign[0], "10"), (foreign[1], "01"), (foreign[0], "02"), (Ride(card=54).pack(), "10")]
    path = answer_file(city.folder, said, date.today(), sender=INTEROP, sequence=9)  # noqa: DTZ011
    receipt = await city.take(path)
    assert receipt.results == {"00": (1, 200), "01": (1, 200), "late": (1, 200), "unknown": (1, 200)}


def _figures(url: str, terminal_no: int) -> Settlement:
    """What the terminal would claim if it had seen everything."""
    with psycopg.connect(url, autocommit=True) as plain:
        rows = plain.execute(
            "SELECT kind, count(*), sum(amount_fen)::bigint FROM journal j WHERE terminal_no = %s AND class = 0"
            " AND answer = '00' AND (effect_fen <> 0 OR EXISTS (SELECT FROM purse_load l WHERE l.entry_no = j.entry_no))"
            " AND NOT EXISTS (SELECT FROM journal r WHERE r.class = 1 AND r.answer = '00'"
            "     AND (r.terminal_no, r.batch_no, r.stan) = (j.terminal_no, j.batch_no, j.stan)) GROUP BY kind",
            (terminal_no,),
        ).fetchall()
        taken = plain.execute(
            "SELECT count(*), coalesce(sum(amount_fen), 0)::bigint FROM purse_record WHERE terminal_no = %s"
            " AND result IN ('10', '04', '11')",
            (terminal_no,),
        ).fetchone()
    assert taken is not None
    debit = [row[1:] for row in rows if row[0] in (1, 8, 10)]
    credit = [row[1:] for row in rows if row[0] in (3, 4, 9)]
    loaded = [row[1:] for row in rows if row[0] == 11]

    def total(lines: Sequence[Any]) -> tuple[Fen, int]:
        return Fen(sum(line[1] for line in lines)), sum(line[0] for line in lines)

    return Settlement(
        GroupTotals(*total(debit), *total(credit)), GroupTotals(Fen(taken[1]), taken[0], *total(loaded))
    )


async def _batches(city: City) -> None:
    figures = _figures(city.url, 8)
    assert (await city.tell(figures, 8)).answer == "00"
    assert (await city.tell(BatchEnd(balanced=True, uploaded=figures.purse.debit_count), 8)).answer == "00"
    figures = _figures(city.url, 2)
    claimed = figures._replace(
        accounts=figures.accounts._replace(debit_fen=Fen(figures.accounts.debit_fen + 5))
    )
    assert (await city.tell(claimed, 2)).answer == "00"
    with psycopg.connect(city.url, autocommit=True) as plain:
        rows = plain.execute(
            "SELECT stan, pan, amount_fen FROM journal WHERE terminal_no = 2 AND kind = 1 ORDER BY stan"
        ).fetchall()
    details = [Detail("10", stan, pan.rjust(20, "0"), Fen(fen)) for stan, pan, fen in rows[1:7]]
    details[0] = details[0]._replace(amount_fen=Fen(details[0].amount_fen + 5))
    details[1] = details[1]._replace(card_number=pan_of(12).rjust(20, "0"))
    details.append(Detail("10", 777_777, pan_of(1).rjust(20, "0"), Fen(12)))
    assert (await city.tell(DetailUpload(tuple(details)), 2)).answer == "00"
    assert (await city.tell(BatchEnd(balanced=False, uploaded=len(details)), 2)).answer == "00"


async def second_day(city: City, bought: dict[str, Any]) -> tuple[int, Outcome]:
    """Refunds of yesterday, evidence about grey records, and a merchant below zero."""
    refunded = await city.undo(Refund, 1, 2_999, bought["refunded later"])
    assert refunded[1].answer == "00"
    await city.lose(12)
    stan, told = bought["decided"]
    with psycopg.connect(city.url, autocommit=True) as plain:
        row = plain.execute(
            "SELECT entry_no FROM journal WHERE stan = %s AND rrn = %s", (stan, told.rrn)
        ).fetchone()
    assert row is not None
    await city.decide(row[0], LoadState.RETURNED)
    completed = await city.follow(Completion, 8, 1_007, bought["held"], terminal_no=7)
    assert completed[1].answer == "00"
    assert (await city.undo(Refund, 8, 100, bought["completed"], terminal_no=7))[1].answer == "00"
    await city.undo(Refund, 6, 1_250, bought["medical"], terminal_no=7, account=MEDICAL)
    divided = await _divided(city)
    await second_day_at_hosts(Hosts(city), bought["hosts"])
    for card in (1, 2, 3):
        await city.buy(card, 250, terminal_no=3)
    await _answers(city, bought["foreign"])
    await city.bring(
        Ride(card=2, atc=3, amount_fen=100, balance_fen=100_000 - 200 - 150 - 250, terminal_no=1),
        Ride(card=3, atc=2, amount_fen=111, balance_fen=100_000 - 200 - 150, terminal_no=1),
    )
    await city.fold()
    return divided


async def _divided(city: City) -> tuple[int, Outcome]:
    """Medical purchases under the policy, with every end that there is; those of card 7 pass the limit of the day. One to be refunded."""

    async def good(coming: Any) -> tuple[int, Outcome]:
        answer: tuple[int, Outcome] = await coming
        assert answer[1].answer == "00", answer
        return answer

    at = {"terminal_no": 5, "account": MEDICAL}
    for fen in (1_001, 1_600, 77):
        await good(city.buy(7, fen, terminal_no=5, account=MEDICAL))
    await good(city.buy(9, 1, terminal_no=5, account=MEDICAL))
    bought = {name: await good(city.buy(9, 333, terminal_no=5, account=MEDICAL)) for name in "abcd"}
    await good(city.undo(Void, 9, 333, bought["a"], **at))
    await good(city.undo(Reversal, 9, 333, bought["b"], **at))
    for fen in (100, 99, 1):
        await good(city.undo(Refund, 9, fen, bought["c"], **at))
    voided = await good(city.undo(Void, 9, 333, bought["d"], **at))
    await good(city.undo(Reversal, 9, 333, voided, was=Kind.VOID, **at))
    return await good(city.buy(10, 777, terminal_no=5, account=MEDICAL))


async def third_day(city: City, divided: tuple[int, Outcome]) -> None:
    """An open day with something in it, part of it not folded."""
    refunded = await city.undo(Refund, 10, 555, divided, terminal_no=5, account=MEDICAL)
    assert refunded[1].answer == "00"
    bought = await city.buy(1, 1_111)
    assert await city.suspend() == 3  # the open loads of the first day: two days are over
    await city.bring(Ride(card=5, atc=1, amount_fen=120, balance_fen=99_800))
    with psycopg.connect(city.url, autocommit=True) as plain:
        plain.execute(
            "UPDATE purse_gap SET opened_at = opened_at - interval '31 days'"
            " WHERE gap_no = (SELECT min(gap_no) FROM purse_gap WHERE kind = 1 AND closed_at IS NULL)"
        )
    await city.fold()
    await city.look_into("GAP_OVERDUE")
    await city.undo(Void, 1, 1_111, bought)
    await city.buy(11, 640)
    hosts = Hosts(city)
    await hosts.buy(2, 77)
    await hosts.ask(3, 78)
    await city.bring(Ride(card=5, atc=2, amount_fen=130, balance_fen=99_680))


async def live_three_days(url: str, vault: SoftwareVault, folder: Path) -> tuple[date, date]:
    """The whole history; the two days that are closed."""
    await found(url, folder)
    async with City(url, vault, folder) as city:
        bought = await first_day(city)
        await audited_interop.first_day(city, await city.today())
        await city.limit()
        await city.govern()
        first = await city.close()
        divided = await second_day(city, bought)
        await audited_interop.second_day(city, first)
        going = await second_day_of_cases(city, first)
        second = await city.close()
        await third_day(city, divided)
        await audited_interop.third_day(city, first, second)
        await third_day_of_cases(city, going, divided[1].rrn)
    return first, second
