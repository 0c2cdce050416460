"""Our cards at other cities' merchants: what the interop centre hands on (DF), judged like any record, paid, and answered (DT).

    DF from the centre   blocks of lines, each line once; a record has one result, and an accepted one is owed to its city (2002 to 2102)
    close of the day     DT, with every line of every DF that ended on it: result and date
    later                a grey record (04) that is decided goes into a DT of the day of decision

The city that is owed is found in the record (purse/remote.py): a file of the centre holds records of many cities.
"""

from datetime import date
from typing import Final, NamedTuple

from switch.clearing.day_files import Connection, PlannedFile
from switch.clearing.files import FileName
from switch.clearing.received import Kind, Terms
from switch.clearing.record_files import Note, record_kind
from switch.domain.errors import InputRefused
from switch.ledger.serials import Serials
from switch.purse.intake import DigestAll
from switch.purse.remote import read_cities, take_remote_chunk
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "own_cards.sql")
FORWARDED: Final = "DF"
ANSWER: Final = "DT"
DUE_MAX: Final = 1_000  # files shown


def own_cards_kind(connection: Connection, terms: Terms, digest_all: DigestAll) -> Kind:
    """How a DF is taken: from the interop centre, to us. Raises InputRefused when there is none."""
    if not terms.interop_centre:
        raise InputRefused("DF files are not taken: interop.centre_id is not set")
    serials = Serials()

    async def intake(records: list[bytes], note: Note) -> None:
        await take_remote_chunk(
            connection,
            records,
            await read_cities(connection, terms.own_id),
            digest_all=digest_all,
            shards=terms.shards,
            serials=serials,
            note=note,
        )

    return record_kind(terms.own_id, terms.interop_centre, intake)


async def plan_answers(connection: Connection, day: date, own_id: str) -> list[PlannedFile]:
    """The DT of a day that has ended: one for each DF, then one for each centre with what was decided later."""
    plan: list[PlannedFile] = []
    for query in ("plan_answers", "plan_decided"):
        cursor = await connection.execute(SQL[query], {"day": day})
        for sender_id, file_no, lines, total_fen in await cursor.fetchall():
            name = FileName(ANSWER, own_id, sender_id, day, len(plan) + 1)
            plan.append(PlannedFile(str(name), sender_id, file_no, lines, total_fen))
    return plan


class DueAnswer(NamedTuple):
    """A DF that waits for our DT. business_date: the day whose close writes it, None while lines are still to be taken."""

    name: str
    sender: str
    lines: int
    lines_done: int
    business_date: date | None


async def due_answers(connection: Connection) -> list[DueAnswer]:
    """What we owe the centre, oldest first, at most DUE_MAX."""
    cursor = await connection.execute(SQL["due_answers"], {"limit": DUE_MAX})
    return [DueAnswer(*row) for row in await cursor.fetchall()]
