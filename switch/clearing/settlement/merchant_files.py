"""What a merchant gets with its payout: which batches and transactions it is made of, to the fen.

All payouts of a settlement date are written out of one stream of lines that is sorted by merchant, so that a day's books are read once. Like all
files of the clearing they are made again identically when one is missing, and compared with the digest that was stored.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.clearing.files import fault_of, mark_complete, sync_folder
from switch.clearing.settlement.paper import settlement_folder
from switch.clearing.settlement.sheets import PayoutSheets, Sheet, clear_rooms, file_names
from switch.clearing.settlement.turn import Connection, SettlementRefused, only_one
from switch.domain.transactions import Kind
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "merchant_files.sql")
PUBLISH_AT_ONCE: Final = 16  # payouts whose files are forced out and marked complete together
KINDS: Final = {kind.value: kind.name.lower() for kind in Kind} | {Kind.UPLOAD.value: "offline"}
OTHER: Final = "other"


class PayoutRow(NamedTuple):
    """An ordered payout of a merchant, with its line."""

    payout_id: str
    merchant_id: str
    merchant_no: int
    amount_fen: int
    mask: str
    bank_code: str
    execution_date: date
    created_at: datetime
    carried_in_fen: int
    net_fen: int
    returned_fen: int
    held_fen: int
    carried_fen: int


class FileRow(NamedTuple):
    """A row of settlement_file. sm3: upper-case hex."""

    name: str
    payout_id: str
    line_count: int
    net_fen: int
    sm3: str
    size_bytes: int


class Line(NamedTuple):
    """One line of the stream. what: the event, of what was booked without a transaction."""

    merchant_no: int
    day: str
    terminal: str
    batch: int
    time: str
    trace: int
    reference: str
    kind: str
    account_kind: int
    card: str
    amount_fen: int
    fee_fen: int

    @property
    def net_fen(self) -> int:
        """What the merchant gets for it."""
        return self.amount_fen - self.fee_fen


def merchant_folder(folder: Path, day: date) -> Path:
    """Where merchants' files of a settlement date lie."""
    return settlement_folder(folder, day) / "merchants"


async def read_files(connection: Connection, day: date) -> list[FileRow]:
    """The files of a settlement date that were ever written."""
    cursor = await connection.execute(SQL["files"], {"date": day})
    return [FileRow(*row) for row in await cursor.fetchall()]


async def write_merchant_files(
    connection: Connection, day: date, folder: Path, *, actor: str
) -> tuple[int, list[str]]:
    """Write the files of ordered payouts that are not on disk as they should be; how many payouts have files, and names written.

    connection: its own, in autocommit mode. Raises FolderError; SettlementRefused when somebody else is at it, or when a
    file would not be what it was.
    """
    async with only_one(connection, actor):
        cursor = await connection.execute(SQL["payouts"], {"date": day})
        payouts = [PayoutRow(*row) for row in await cursor.fetchall()]
        stored = {row.name: row for row in await read_files(connection, day)}
        place = merchant_folder(folder, day)
        missing = [one for one in payouts if _faulty(place, one, stored)]
        writer = _Writer(connection, day, place, stored)
        return len(payouts), await writer.write(missing, every=len(missing) == len(payouts))


def _faulty(folder: Path, payout: PayoutRow, stored: Mapping[str, FileRow]) -> bool:
    for name in file_names(payout.payout_id):
        row = stored.get(name)
        if row is None or fault_of(folder / name, row.sm3, row.size_bytes):
            return True
    return False


class _Writer:
    def __init__(
        self, connection: Connection, day: date, folder: Path, stored: Mapping[str, FileRow]
    ) -> None:
        self._connection = connection
        self._day = day
        self._folder = folder
        self._stored = stored
        self._ready: list[tuple[PayoutRow, list[Sheet]]] = []
        self._names: list[str] = []

    async def write(self, payouts: Sequence[PayoutRow], *, every: bool) -> list[str]:
        if not payouts:
            return []
        clear_rooms(self._folder)
        nets: dict[str, dict[str, int]] = {one.merchant_id: {} for one in payouts}
        cursor = await self._connection.execute(SQL["day_nets"], {"date": self._day, "parties": list(nets)})
        for party, business_date, net_fen in await cursor.fetchall():
            nets[party][business_date.isoformat()] = net_fen
        # A copy in progress holds the connection, so digests are stored when it has ended.
        async with aclosing(self._lines([one.merchant_no for one in payouts], every=every)) as lines:
            line = await anext(lines, None)
            for payout in payouts:
                while line is not None and line.merchant_no < payout.merchant_no:
                    line = await anext(lines, None)  # of a merchant without a payout
                sheets = PayoutSheets(self._folder, payout.payout_id, payout.created_at)
                try:
                    making = _Making(payout, nets[payout.merchant_id], sheets, self._day)
                    while line is not None and line.merchant_no == payout.merchant_no:
                        making.add(line)
                        line = await anext(lines, None)
                    self._ready.append((payout, making.finish()))
                finally:
                    sheets.drop()
        await self._publish()
        return self._names

    async def _lines(self, merchants: Sequence[int], *, every: bool) -> AsyncGenerator[Line, None]:
        values = {"date": self._day, "merchants": list(merchants), "every": every}
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute(
                "SET LOCAL enable_nestloop = off"
            )  # millions of rows, whatever the estimates say
            await cursor.execute("SET LOCAL jit = off")
            async with cursor.copy(SQL["lines"], values) as rows:
                async for data in rows:
                    yield _line(bytes(data).decode())

    async def _publish(self) -> None:
        """Names forced out, then the digests stored, then the files marked complete."""
        for at in range(0, len(self._ready), PUBLISH_AT_ONCE):
            part = self._ready[at : at + PUBLISH_AT_ONCE]
            sync_folder(self._folder)
            fresh = [(payout, sheet) for payout, sheets in part for sheet in sheets if self._is_new(sheet)]
            await self._connection.execute(
                SQL["keep_files"],
                {
                    "date": self._day,
                    "names": [sheet.written.name for _, sheet in fresh],
                    "payouts": [payout.payout_id for payout, _ in fresh],
                    "counts": [sheet.line_count for _, sheet in fresh],
                    "nets": [payout.net_fen for payout, _ in fresh],
                    "sm3s": [sheet.written.sm3 for _, sheet in fresh],
                    "sizes": [sheet.written.size for _, sheet in fresh],
                },
            )
            written = [sheet.written for _, sheets in part for sheet in sheets]
            mark_complete(self._folder, written)
            self._names += [one.name for one in written]

    def _is_new(self, sheet: Sheet) -> bool:
        row = self._stored.get(sheet.written.name)
        if row is not None and row.sm3 != sheet.written.sm3:
            raise SettlementRefused(
                f"{row.name}: has other bytes than the one that was sent; was XlsxWriter upgraded since? Restore the file"
            )
        return row is None


def _line(row: str) -> Line:
    """A row as COPY's text format sends it: it doubles backslashes, the only ones of its marks that printable texts need."""
    cells = row.rstrip("\n").replace("\\\\", "\\").split("\t")
    merchant, day, terminal, batch, time, trace, reference, kind, account, card, amount, fee, what = cells
    word = what or KINDS[int(kind)]
    return Line(
        int(merchant),
        day,
        terminal,
        int(batch),
        time,
        int(trace),
        reference,
        word,
        int(account),
        card,
        int(amount),
        int(fee),
    )


class _Making:
    """One payout's rows: its lines as they come, a batch when it ends, the payout at the end."""

    def __init__(self, payout: PayoutRow, nets: Mapping[str, int], sheets: PayoutSheets, day: date) -> None:
        self._payout = payout
        self._nets = nets
        self._sheets = sheets
        self._settlement_date = day
        self._batch: tuple[str, str, int] | None = None
        self._sums = [0, 0, 0]  # transactions, amount, fee
        self._days = dict.fromkeys(nets, 0)

    def add(self, line: Line) -> None:
        batch = (line.day, line.terminal, line.batch)
        if batch != self._batch:
            self._end_batch()
            self._batch = batch
        self._sums[0] += 1
        self._sums[1] += line.amount_fen
        self._sums[2] += line.fee_fen
        self._days[line.day] = self._days.get(line.day, 0) + line.net_fen
        self._sheets.add(
            "transactions",
            (
                self._payout.payout_id,
                line.day,
                line.terminal,
                line.batch,
                line.time,
                line.trace,
                line.reference,
                line.kind,
                line.account_kind,
                line.card,
                line.amount_fen,
                line.fee_fen,
                line.net_fen,
            ),
        )

    def _end_batch(self) -> None:
        if self._batch is None:
            return
        transactions, amount_fen, fee_fen = self._sums
        self._sheets.add(
            "batches",
            (
                self._payout.payout_id,
                *self._batch,
                transactions,
                amount_fen,
                fee_fen,
                amount_fen - fee_fen,
            ),
        )
        self._sums = [0, 0, 0]

    def _rest(self) -> Iterator[Line]:
        """What a day's line has and no transaction or booking says, so that the sums tie whatever a later version posts."""
        for day, fen in sorted(self._days.items()):
            rest_fen = self._nets.get(day, 0) - fen
            if rest_fen:
                yield Line(0, day, "", 0, "", 0, "", OTHER, 0, "", rest_fen, 0)

    def finish(self) -> list[Sheet]:
        for line in list(self._rest()):
            self.add(line)
        self._end_batch()
        one = self._payout
        assert sum(self._days.values()) == one.net_fen, f"{one.payout_id}: lines and payout differ"
        days = sorted(self._nets) or [""]
        self._sheets.add(
            "payout",
            (
                one.payout_id,
                one.merchant_id,
                self._settlement_date.isoformat(),
                one.execution_date.isoformat(),
                days[0],
                days[-1],
                one.mask,
                one.bank_code,
                one.carried_in_fen,
                one.net_fen,
                one.returned_fen,
                one.held_fen,
                one.carried_fen,
                one.amount_fen,
            ),
        )
        return self._sheets.finish()


def inspect_files(folder: Path, day: date, rows: Sequence[FileRow]) -> list[tuple[FileRow, str]]:
    """Each file with what is wrong with it; empty when it is whole and marked complete."""
    place = merchant_folder(folder, day)
    return [(row, fault_of(place / row.name, row.sm3, row.size_bytes)) for row in rows]


def as_json(found: Sequence[tuple[FileRow, str]]) -> list[dict[str, Any]]:
    """Files and their faults, for programs."""
    return [{**row._asdict(), "fault": fault} for row, fault in found]
