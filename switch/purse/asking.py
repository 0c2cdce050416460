"""What one transaction of intake asks the database: a little about all records, and everything about the few that are not plain."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from psycopg import AsyncCursor

from switch.ledger.batch_messages import ask
from switch.ledger.writer import Connection
from switch.purse.batch import PAN_DIGITS, Batch, CardFacts, places_of
from switch.purse.columns import Flags, Numbers
from switch.purse.verify import Candidate, Card, Judge, Psam, day_bytes
from switch.storage.arrays import int4s, int8s, texts
from switch.storage.columns import column_of, int4_column, int8_column, text_column
from switch.storage.sql import load

SQL: Final = load("switch.purse")
_TWO_64 = 1 << 64
_ASCII_0 = 48
Rows = AsyncCursor[tuple[Any, ...]]


class Known(NamedTuple):
    """What the database knows of a batch. touched: of these records it knows something that only the judge can weigh."""

    issuers: dict[bytes, bool]
    psams: dict[int, Psam]
    facts: CardFacts
    touched: Flags


class Asked(NamedTuple):
    """Questions about all records of a batch, on their way. used: whether their counters are used up; nothing if nobody asked."""

    issuers: Rows
    psams: Rows
    cards: Rows
    waiting: Rows
    used: tuple[Rows, ...]

    @classmethod
    async def send(cls, connection: Connection, batch: Batch, *, counters: bool) -> "Asked":
        """Queue the questions in the pipeline that is open on the connection. counters: ask about counters too."""
        psams = {"psams": texts([f"{psam:012d}" for psam in batch.psams.tolist()])}
        issuers = await ask(connection, SQL["read_issuers"])
        psam_rows = await ask(connection, SQL["read_psams"], psams)
        cards = await ask(connection, SQL["read_card_facts"], {"pans": text_column(batch.pans)})
        waiting = await ask(
            connection, SQL["read_waiting_cards"], {"cards": int8_column(batch.cards.view(np.int64))}
        )
        used: tuple[Rows, ...] = ()
        if counters:
            columns = batch.columns
            atcs = {"cards": int8_column(columns.card.view(np.int64)), "atcs": int4_column(columns.atc)}
            serials = {"psams": int8_column(columns.psam), "serials": int8_column(columns.psam_serial)}
            used = (
                await ask(connection, SQL["find_used_atcs"], atcs),
                await ask(connection, SQL["find_used_serials"], serials),
            )
        return cls(issuers, psam_rows, cards, waiting, used)

    async def received(self, batch: Batch) -> Known:
        """The answers, once the pipeline has been left."""
        issuers: dict[bytes, bool] = dict(await self.issuers.fetchall())
        psams = {int(psam_no): Psam(*facts) for psam_no, *facts in await self.psams.fetchall()}
        facts = _card_facts(batch, await _one(self.cards))
        waiting = column_of((await _one(self.waiting))[0], ">i8").astype(np.int64)
        touched = np.isin(batch.columns.card.view(np.int64), waiting)
        for cursor in self.used:
            touched[column_of((await _one(cursor))[0], ">i8") - 1] = True
        return Known(issuers, psams, facts, touched)


async def _one(cursor: Rows) -> tuple[Any, ...]:
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return row


def _card_facts(batch: Batch, sent: Sequence[bytes | None]) -> CardFacts:
    digits = column_of(sent[0], f"({PAN_DIGITS},)u1") - _ASCII_0
    cards = np.zeros(len(digits), np.uint64)
    for column in digits.T:
        cards = cards * np.uint64(10) + column
    at = places_of(cards, batch.cards)

    def spread(column: bytes | None, code: str) -> Numbers:
        values = np.zeros(len(batch.cards), np.int64)
        values[at] = column_of(column, code)
        return values

    known = np.zeros(len(batch.cards), np.bool_)
    known[at] = True
    return CardFacts(
        known, *(spread(*one) for one in zip(sent[1:], (">i2", ">i8", ">i4", ">i4"), strict=True))
    )


async def ask_for_judge(
    connection: Connection, judge: Judge, candidates: Sequence[Candidate]
) -> Mapping[int, Card]:
    """Tell a judge all about some records; returns cards that have no facts of their own. One round trip."""
    used = {
        "cards": int8s([candidate.card for candidate in candidates]),
        "atcs": int4s([candidate.atc for candidate in candidates]),
    }
    counters = {
        "psams": int8s([candidate.psam for candidate in candidates]),
        "serials": int8s([candidate.psam_serial for candidate in candidates]),
    }
    unknown = sorted({candidate.card for candidate in candidates if candidate.facts is None})
    asked = {"cards": int8s(unknown), "pans": texts([f"{card % _TWO_64:019d}" for card in unknown])}
    async with connection.pipeline():
        cards = await ask(connection, SQL["read_cards"], asked)
        accepted = await ask(connection, SQL["find_accepted"], used)
        waiting = await ask(connection, SQL["find_waiting"], used)
        serials = await ask(connection, SQL["find_serials"], counters)
    for card, atc, amount_fen, mark in await accepted.fetchall():
        judge.accepted[card, atc] = (amount_fen, mark)
    judge.waiting.update(await waiting.fetchall())
    judge.serials.update(await serials.fetchall())
    return {
        card: Card(shard, card_no, day_bytes(valid_from), day_bytes(valid_through))
        for card, shard, card_no, valid_from, valid_through in await cards.fetchall()
    }
