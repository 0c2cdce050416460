"""Records of our cards at other cities' merchants, as the interop centre hands them on: our desk, checks and rows, their terminals.

Neither terminal, merchant nor PSAM is in our registry. What takes their place in the first check is the acquiring city, which must be
registered and another than ours; it is owed what is accepted (2002 to 2102). A card that is not ours has come to the wrong
city: 08. Such records have batch_no -1, and no terminal or merchant.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from switch.ledger.batch_messages import Session
from switch.ledger.chart import Code
from switch.ledger.serials import Serials
from switch.ledger.writer import Connection
from switch.purse.asking import SQL, Asked
from switch.purse.batch import Batch, Registrations
from switch.purse.batches import Batches
from switch.purse.columns import eight_bytes, joined
from switch.purse.depot import DepotDesk, Lines, Statement, TakenChunk, take_again
from switch.purse.intake import DigestAll
from switch.purse.verify import Psam

FROM_CENTRE: Final = -1  # batch_no: by way of the interop centre
NO_CITY: Final = "acquirer belongs to no other city"
STRANGE_PSAM: Final = "PSAM is another acquirer's"


class Cities(NamedTuple):
    """Other cities that take part."""

    own_id: str
    ids: frozenset[str]

    def of(self, acquirer_id: str, city_code: str) -> str:
        """The city whose acquirer this is: the acquirer itself, else the only one of that city code (its last four digits); or ''.

        >>> cities = Cities("99993350", frozenset({"99993310", "99993320"}))
        >>> (
        ...     cities.of("99993310", "3350"),
        ...     cities.of("12345678", "3320"),
        ...     cities.of("99993350", "3310"),
        ...     cities.of("1", "0571"),
        ... )
        ('99993310', '99993320', '', '')
        """
        if acquirer_id in self.ids:
            return acquirer_id
        if acquirer_id == self.own_id:
            return ""
        found = [city for city in self.ids if city[4:] == city_code]
        return found[0] if len(found) == 1 else ""


async def read_cities(connection: Connection, own_id: str) -> Cities:
    """Who takes part, as the registry says now."""
    cursor = await connection.execute(SQL["read_cities"], {"own": own_id})
    return Cities(own_id, frozenset([row[0] for row in await cursor.fetchall()]))


class _RemoteBatch(Batch):
    """Records that belong to no merchant of ours."""

    def __init__(self, lines: Sequence[Lines], cities: Cities) -> None:
        super().__init__(lines)
        self._cities = cities

    def registrations(self, psams: Mapping[int, Psam]) -> Registrations:
        """Look at each distinct (PSAM, acquirer, city code) once. A PSAM that we know must be in that city's hands."""
        columns = self.columns
        codes = np.where(self.readable, (self.raw[:, 71].astype(np.int64) << 8) + self.raw[:, 72], 0)
        acquirers, acquirer_of = np.unique(columns.acquirer, return_inverse=True)
        psam_of = np.unique(columns.psam, return_inverse=True)[1]
        key = ((psam_of * len(acquirers) + acquirer_of) << 16) + codes
        _, first, of = np.unique(key, return_index=True, return_inverse=True)
        faults: list[str] = []
        owed: list[tuple[int, int]] = []
        for place in first.tolist():
            acquirer_id = eight_bytes(columns.acquirer[place])[:4].hex()
            city = self._cities.of(acquirer_id, f"{int(codes[place]):04x}")
            psam = psams.get(int(columns.psam[place]))
            fault = "" if city else NO_CITY
            if psam is not None and psam.acquirer_id != acquirer_id:
                fault = STRANGE_PSAM
            faults.append(fault)
            owed.append((Code.INTEROP_PAYABLE, int(city)) if city else (0, 0))
        good = np.array([not fault for fault in faults], np.bool_)
        columns_owed = np.array(owed, np.int64).reshape(-1, 2)[of]
        return Registrations(faults, of, good[of], columns_owed[:, 0], columns_owed[:, 1])


async def take_remote_chunk(
    connection: Connection,
    records: Sequence[bytes],
    cities: Cities,
    *,
    digest_all: DigestAll,
    shards: int,
    serials: Serials,
    note: Callable[[TakenChunk], Sequence[Statement]],
) -> TakenChunk:
    """Take consecutive records that the centre has handed on, as depot.take_chunk takes those of a depot."""
    blob = joined(records)
    lines = [Lines(0, 0, records, blob, await digest_all(blob), batch_no=FROM_CENTRE)]

    async def write() -> TakenChunk:
        batch = _RemoteBatch(lines, cities)
        session = Session(shards, serials)
        asked = await session.begin(
            connection, (), serials=batch.count, more=lambda link: Asked.send(link, batch, counters=True)
        )
        assert asked is not None
        known = await asked.received(batch)
        ours: dict[bytes, bool] = {issuer: own for issuer, own in known.issuers.items() if own}
        desk = DepotDesk(session, Batches(session, ()), shards, lines, batch, known._replace(issuers=ours))
        await desk.decide(connection)
        await desk.copy_rows(connection)
        taken = desk.taken()
        await session.finish(connection, [*desk.statements(), *note(taken)])
        return taken

    return await take_again(connection, write)
