"""The interop centre between cities: what comes to it. Files of acquiring cities (FH), answers of the cities of the cards (DT).

    FH   each line: form, acquirer, issuer on the white list and in its scope, the same record in any file before; forwarded (11) or refused
         (02, 03, 08). A file counts for the date in its name, or, when it came too late for that, for the first date that is still open
    DT   each line ends what was forwarded to its sender, holds it (04: grey there), or changes nothing: late, unknown

Members are the registry's institutions of role CITY, and the city of this installation where it is one. What goes out is centre_run.py.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.clearing.files import FileName
from switch.clearing.foreign import HELD, LATE, UNKNOWN, Deadline, card_of, check_answer, counted, date_of
from switch.clearing.layouts import Value
from switch.clearing.received import Block, Kind, Progress
from switch.clearing.signatures import Signer
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.purse.columns import joined, rows_of, well_formed
from switch.purse.remote import Cities, read_cities
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "centre.sql")
FORWARD, FORWARDED, ANSWER = "FH", "DF", "DT"
MEMBER: Final = "CITY"
CENTRE_LOCK: Final = (
    0x43435349  # advisory, two-part: 0 one run at a time, 1 taking files against settling a date
)


class CentreTerms(NamedTuple):
    """What the settings say about a centre. own_id: the city of the same installation. now: a test's instant.

    file_signer: signs what is written for the first time; None: it is not signed.
    """

    centre_id: str
    own_id: str
    folder: Path
    is_workday: Callable[[date], bool]
    actor: str
    forward_by: time = time(2)
    deadline: Deadline = Deadline()
    fund_by: time = time(10)
    now: datetime | None = None
    file_signer: Signer | None = None

    def over(self, clearing_date: date, now: datetime) -> bool:
        """Whether the time for answers about records of a date is over."""
        last = datetime.combine(clearing_date + timedelta(self.deadline.days), self.deadline.by, SHANGHAI)
        return now >= last


async def _begin(connection: Connection, terms: CentreTerms) -> tuple[datetime, date]:
    """Instant and business date of a transaction that takes lines: behind the locks, so that nothing is settled beside it."""
    await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
    await connection.execute(SQL["join_in"], {"space": CENTRE_LOCK})
    row = await (await connection.execute(SQL["read_instant"], {"now": terms.now})).fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    return row[0], row[1]


def forward_kind(connection: Connection, name: FileName, terms: CentreTerms) -> Kind:
    """How a city's FH is taken."""

    async def take(progress: Progress, block: Block) -> Progress:
        raws = [bytes.fromhex(str(values["record"])) for values in block.lines]
        async with connection.transaction():
            now, today = await _begin(connection, terms)
            cities = await read_cities(connection, "")
            values = _records(raws, name.sender, Cities("", cities.ids | {terms.own_id}))
            values |= {
                "file_no": progress.file_no,
                "member": name.sender,
                "own": terms.own_id,
                "lines": list(range(block.first_line, block.first_line + len(raws))),
            }
            cursor = await connection.execute(SQL["add_records"], values)
            results = {code: (count, fen) for code, count, fen in await cursor.fetchall()}
            moved = progress.after(len(raws), results)
            await connection.execute(*moved.statement(today))
            if moved.lines_done == moved.line_count:
                arrival = {"file_no": progress.file_no, "named": name.day, "now": now}
                await connection.execute(SQL["add_arrival"], arrival | {"forward_by": terms.forward_by})
        return moved

    def check(_number: int, _values: dict[str, Value]) -> None:
        """The layout says all that a line must be; what a record is worth is said one by one."""

    return Kind(terms.centre_id, "", check, take, role=MEMBER, own_id=terms.own_id)


def _records(raws: Sequence[bytes], sender: str, cities: Cities) -> dict[str, Any]:
    """The columns of records. good: of good form, and of an acquirer of the city that sent them."""
    formed = well_formed(rows_of(joined(raws))).tolist()
    return {
        "raws": list(raws),
        "cards": [card_of(raw) for raw in raws],
        "atcs": [int.from_bytes(raw[28:30]) for raw in raws],
        "amounts": [int.from_bytes(raw[30:34]) for raw in raws],
        "marks": [raw[38:59] for raw in raws],
        "good": [
            form and cities.of(raw[63:67].hex(), raw[71:73].hex()) == sender
            for form, raw in zip(formed, raws, strict=True)
        ],
    }


class _Answer(NamedTuple):
    """A line that may decide a forwarded record: its place in the block, and what becomes of the record."""

    place: int
    file_no: int
    line: int
    result: str
    answered_on: date | None
    counted_on: date | None


def centre_answer_kind(connection: Connection, name: FileName, terms: CentreTerms) -> Kind:
    """How a DT of a city about its own cards is taken."""

    async def take(progress: Progress, block: Block) -> Progress:
        raws = [bytes.fromhex(str(values["record"])) for values in block.lines]
        async with connection.transaction():
            now, today = await _begin(connection, terms)
            became = [UNKNOWN] * len(raws)
            answers = await _answers(connection, name.sender, terms, now, block.lines, raws, became)
            for query, ends in (("add_verdicts", True), ("add_holds", False)):
                chosen = [one for one in answers if (one.result != HELD) == ends]
                if not chosen:
                    continue
                cursor = await connection.execute(SQL[query], _columns(chosen, progress.file_no))
                written = set(await cursor.fetchall())
                for one in chosen:
                    if (one.file_no, one.line) not in written:
                        became[one.place] = LATE
            moved = progress.after(len(raws), counted(became, raws))
            await connection.execute(*moved.statement(today))
        return moved

    return Kind(terms.centre_id, "", check_answer, take, role=MEMBER, own_id=terms.own_id)


async def _answers(
    connection: Connection,
    sender: str,
    terms: CentreTerms,
    now: datetime,
    lines: Sequence[Mapping[str, Value]],
    raws: Sequence[bytes],
    became: list[str],
) -> list[_Answer]:
    """Which lines decide or hold a record; what becomes of every line goes into `became`."""
    values = _records(raws, sender, Cities("", frozenset()))
    cursor = await connection.execute(SQL["find_forwarded"], values | {"member": sender})
    answers: dict[tuple[int, int], _Answer] = {}
    for n, file_no, line, clearing_date, settled, ended, held in await cursor.fetchall():
        result = str(lines[n - 1]["result"])
        over = not held and (settled or terms.over(clearing_date, now))
        if ended or over or (held and result == HELD) or (file_no, line) in answers:
            became[n - 1] = LATE
            continue
        became[n - 1] = result
        counted_on = None if settled else clearing_date
        answers[file_no, line] = _Answer(n - 1, file_no, line, result, date_of(lines[n - 1]), counted_on)
    return list(answers.values())


def _columns(answers: Sequence[_Answer], answer_no: int) -> dict[str, Any]:
    return {
        "answer_no": answer_no,
        "files": [one.file_no for one in answers],
        "lines": [one.line for one in answers],
        "results": [one.result for one in answers],
        "dates": [one.answered_on for one in answers],
        "counted": [one.counted_on for one in answers],
    }
