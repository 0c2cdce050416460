"""Taking a bank's statement in: read as a whole first, then decided entry by entry, in transactions of a bounded size.

What is read is stored with the digest of the file in one transaction, or nothing is. Deciding can be killed anywhere: entries that have no
outcome yet get theirs in the next run. The same file again does nothing more; another file under the same id is refused.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from hashlib import new as new_digest
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.clearing.settlement.camt import End, Entry, Event, Head, StatementReader, StatementRefused
from switch.clearing.settlement.legs import Accounts, bookings_of, received_legs
from switch.clearing.settlement.matching import Earlier, Known, Verdict, decide, reference_of
from switch.clearing.settlement.payouts import Move, Payout, back_again, booked_legs, move, source_of
from switch.clearing.settlement.terms import SealNumbers, account_in_force, number_of
from switch.clearing.settlement.turn import Connection, SettlementRefused, fold_now, only_one
from switch.ledger.bookings import Booking, book
from switch.ledger.chart import Event as MoneyEvent
from switch.ledger.fold import LOOKBACK_DAYS
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "statements.sql")
READ_BYTES: Final = 1 << 16
AT_ONCE: Final = 2_000  # entries of one transaction: the day cannot be sealed before it ends
STATEMENTS_MAX: Final = 100  # of one file
LISTED_MAX: Final = 1_000


class StatementTerms(NamedTuple):
    """own_id: whose account it must be about. file_bytes_max: a longer file is refused unread."""

    own_id: str
    shards: tuple[int, ...]
    file_bytes_max: int


class Taken(NamedTuple):
    """One statement. again: all of it had been taken before. counts: outcome to entries, fen, and fen into suspense."""

    statement_no: int
    kind: str
    statement_id: str
    again: bool
    counts: dict[str, tuple[int, int, int]]


class _Read(NamedTuple):
    head: Head
    end: End


async def take_statement(
    connection: Connection, path: Path, terms: StatementTerms, vault: SealNumbers, *, actor: str
) -> list[Taken]:
    """Take every statement of a file, or go on where a killed run stopped.

    connection: its own, in autocommit mode. Raises StatementRefused (form, balances, another account, another content under
    a known id), SettlementRefused (no account of ours, somebody else at it).
    """
    async with only_one(connection, actor):
        own = await account_in_force(connection, terms.own_id, date.max)
        if own is None:
            raise SettlementRefused(f"institution {terms.own_id} has no confirmed account to compare with")
        paper = _Paper(path, terms.file_bytes_max)
        numbers = await _stage(connection, paper, number_of(vault, own), actor)
        return [await _decide_all(connection, statement_no, terms, actor) for statement_no in numbers]


class _Paper:
    """A file that is read once: its events, its digest on the way, and no byte more than allowed."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._digest = new_digest("sm3")

    @property
    def sm3(self) -> str:
        """Of what was read so far, as hex."""
        return self._digest.hexdigest()

    def events(self) -> Iterator[Event]:
        """Raises StatementRefused."""
        reader = StatementReader()
        size = 0
        with self._path.open("rb") as file:
            while block := file.read(READ_BYTES):
                size += len(block)
                if size > self._bytes_max:
                    raise StatementRefused(
                        f"longer than {self._bytes_max} bytes: the setting settlement.statement_mb_max"
                    )
                self._digest.update(block)
                yield from reader.feed(block)
        yield from reader.finish()


async def _stage(connection: Connection, paper: _Paper, account: str, actor: str) -> list[int]:
    """Store what the file says; the numbers of its statements."""
    found: list[_Read] = []
    async with connection.transaction():
        await connection.execute(SQL["make_room"])
        async with connection.cursor() as cursor, cursor.copy(SQL["stage"]) as rows:
            head: Head | None = None
            line = 0
            for event in paper.events():
                if isinstance(event, Head):
                    _check_head(event, account, found)
                    head, line = event, 0
                elif isinstance(event, Entry):
                    line += 1
                    await rows.write_row((len(found), line, *event))
                else:
                    assert head is not None
                    _check_sums(head, event)
                    found.append(_Read(head, event))
        return [await _keep(connection, place, one, paper.sm3, actor) for place, one in enumerate(found)]


def _check_head(head: Head, account: str, before: Sequence[_Read]) -> None:
    if head.account != account:
        raise StatementRefused(f"statement {head.statement_id} is not about the custody account")
    if len(before) >= STATEMENTS_MAX:
        raise StatementRefused(f"more than {STATEMENTS_MAX} statements in one file")
    if any(one.head.statement_id == head.statement_id for one in before):
        raise StatementRefused(f"statement {head.statement_id} is in the file twice")


def _check_sums(head: Head, end: End) -> None:
    if head.opening_fen is None or head.closing_fen is None:
        return
    if head.opening_fen + end.credit_fen - end.debit_fen != head.closing_fen:
        raise StatementRefused(
            f"statement {head.statement_id}: opening balance and entries do not come to the closing balance"
        )


async def _keep(connection: Connection, place: int, one: _Read, sm3: str, actor: str) -> int:
    values = {**one.head._asdict(), **one.end._asdict(), "sm3": sm3, "actor": actor, "place": place}
    known = await (await connection.execute(SQL["known_statement"], values)).fetchone()
    if known is not None:
        if not known[1]:
            raise StatementRefused(
                f"statement {one.head.statement_id} was taken before, and its file was another: ask the bank"
            )
        known_no: int = known[0]
        return known_no
    row = await (await connection.execute(SQL["add_statement"], values)).fetchone()
    assert row is not None
    statement_no: int = row[0]
    await connection.execute(SQL["add_entries"], {"statement_no": statement_no, "place": place})
    return statement_no


async def _decide_all(connection: Connection, statement_no: int, terms: StatementTerms, actor: str) -> Taken:
    row = await (await connection.execute(SQL["statement"], {"statement_no": statement_no})).fetchone()
    assert row is not None
    kind, statement_id, again = row[1], row[2], row[11] is not None
    while await _decide_some(connection, statement_no, kind, terms, actor):
        pass
    if not again:
        await fold_now(connection, terms.shards)
        since = date.today() - timedelta(days=LOOKBACK_DAYS)  # noqa: DTZ011  only to leave old partitions unread
        await connection.execute(SQL["end_statement"], {"statement_no": statement_no, "since": since})
    cursor = await connection.execute(SQL["counts"], {"statement_no": statement_no})
    counts = {outcome: (count, fen, suspense) for outcome, count, fen, suspense in await cursor.fetchall()}
    return Taken(statement_no, kind, statement_id, again, counts)


class _Decided(NamedTuple):
    line: int
    entry: Entry
    payout_id: str | None
    verdict: Verdict


async def _decide_some(
    connection: Connection, statement_no: int, kind: str, terms: StatementTerms, actor: str
) -> bool:
    """One transaction of entries; False when none is left."""
    await fold_now(
        connection, terms.shards
    )  # what an institution is paid by is set off against what it owes now
    async with connection.transaction():
        cursor = await connection.execute(
            SQL["next_entries"], {"statement_no": statement_no, "most": AT_ONCE}
        )
        entries = [(row[0], Entry(*row[1:])) for row in await cursor.fetchall()]
        if not entries:
            return False
        payouts = await _lock(connection, [reference_of(entry) for _, entry in entries])
        earlier = await _earlier(connection, list(payouts), [entry.bank_ref for _, entry in entries])
        states = {payout.payout_id: payout.state for payout in payouts.values()}
        decided: list[_Decided] = []
        for line, entry in entries:
            payout = payouts.get(reference_of(entry))
            known = payout and Known(payout.payout_id, payout.amount_fen, states[payout.payout_id])
            key = (payout.payout_id if payout else entry.bank_ref, entry.is_credit)
            before = earlier.setdefault(key, []) if key[0] else []
            verdict = decide(entry, kind, known, before)
            if verdict.outcome not in ("WAITS", "PENDING"):
                settled = verdict.to_state is not None
                before.append(Earlier(kind, entry.bank_ref, settled))
            if payout and verdict.to_state:
                states[payout.payout_id] = verdict.to_state
            decided.append(_Decided(line, entry, payout.payout_id if payout else None, verdict))
        await _carry_out(connection, statement_no, decided, payouts, actor)
    return True


async def _lock(connection: Connection, references: Sequence[str]) -> dict[str, Payout]:
    cursor = await connection.execute(SQL["lock_payouts"], {"ids": sorted({*references} - {""})})
    return {row[0]: Payout(*row) for row in await cursor.fetchall()}


async def _earlier(
    connection: Connection, payout_ids: Sequence[str], refs: Sequence[str]
) -> dict[tuple[str, bool], list[Earlier]]:
    found: dict[tuple[str, bool], list[Earlier]] = {}
    cursor = await connection.execute(SQL["earlier_of_payouts"], {"ids": list(payout_ids)})
    for payout_id, credit, kind, ref, settled in await cursor.fetchall():
        found.setdefault((payout_id, credit), []).append(Earlier(kind, ref, settled))
    cursor = await connection.execute(SQL["earlier_of_references"], {"refs": sorted({*refs} - {""})})
    for ref, credit, kind in await cursor.fetchall():
        found.setdefault((ref, credit), []).append(Earlier(kind, ref, settled=False))
    return found


async def _carry_out(
    connection: Connection,
    statement_no: int,
    decided: Sequence[_Decided],
    payouts: dict[str, Payout],
    actor: str,
) -> None:
    """Book, move, and write the outcomes."""
    bookings: list[Booking] = []
    moves: list[Move] = []
    back = [one.payout_id for one in decided if one.verdict.to_state == "RETURNED" and one.payout_id]
    legs = await booked_legs(connection, back)
    states = {payout_id: payout.state for payout_id, payout in payouts.items()}
    for one in decided:
        source = f"bank-entry {statement_no}/{one.line}"
        if one.verdict.suspense_fen:
            bookings.append(_suspense(one, source))
        if one.payout_id is None or one.verdict.to_state is None:
            continue
        payout = payouts[one.payout_id]
        reason = f"{source} {one.entry.reason_code}".strip()
        moves.append(Move(one.payout_id, states[one.payout_id], one.verdict.to_state, reason))
        states[one.payout_id] = one.verdict.to_state
        if one.verdict.to_state == "RETURNED":
            bookings += back_again(payout, legs[one.payout_id], reason)
        elif one.verdict.to_state == "FUNDED":
            bookings += await funding(connection, payout, reason)
    booked = await book(connection, bookings, actor=actor)
    assert None not in booked.entries, "what is decided now was never booked before"
    # One after the other where a payout moves twice (paid, then returned).
    for batch in _rounds(moves):
        await move(connection, batch, booked.at, actor=actor, day=booked.business_date)
    await connection.execute(
        SQL["decide_entries"],
        {
            "statement_no": statement_no,
            "lines": [one.line for one in decided],
            "outcomes": [one.verdict.outcome for one in decided],
            "payouts": [one.payout_id for one in decided],
            "suspenses": [one.verdict.suspense_fen for one in decided],
        },
    )


def _rounds(moves: Sequence[Move]) -> list[list[Move]]:
    rounds: list[list[Move]] = []
    seen: dict[str, int] = {}
    for one in moves:
        place = seen.get(one.payout_id, 0)
        seen[one.payout_id] = place + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(one)
    return rounds


def _suspense(one: _Decided, source: str) -> Booking:
    fen = one.verdict.suspense_fen
    event = MoneyEvent.MONEY_UNEXPLAINED if fen > 0 else MoneyEvent.MONEY_SENT_BACK
    return Booking(event, abs(fen), 0, 0, source, f"{one.verdict.outcome} {one.payout_id or ''}".strip())


async def funding(connection: Connection, payout: Payout, reason: str) -> list[Booking]:
    """What a collection that has come books: the transfer, and what is set off with it."""
    source = source_of(payout.payout_id)
    if payout.kind == "FUND":
        return [Booking(MoneyEvent.FUND_SETTLED, payout.amount_fen, 0, 0, source, reason)]
    cursor = await connection.execute(SQL["institution_accounts"], {"owner": int(payout.party)})
    row = await cursor.fetchone()
    assert row is not None
    return bookings_of(source, payout.party, received_legs(Accounts(*row), payout.amount_fen), reason)


async def list_statements(connection: Connection) -> list[dict[str, Any]]:
    """The newest statements with their balances. gap_fen: opening less the closing balance of the statement taken before it."""
    cursor = await connection.execute(SQL["newest_statements"], {"most": LISTED_MAX})
    found = []
    for (statement_no,) in await cursor.fetchall():
        cursor = await connection.execute(SQL["statement"], {"statement_no": statement_no})
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        row = await cursor.fetchone()
        assert row is not None
        found.append(dict(zip(names, row, strict=True)))
    return found


async def list_odd(connection: Connection, *, waiting: bool) -> list[dict[str, Any]]:
    """Entries of which something lies in suspense still; with those that wait for a statement, if asked for."""
    cursor = await connection.execute(SQL["odd_entries"], {"waiting": waiting, "most": LISTED_MAX})
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
