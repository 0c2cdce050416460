"""All files of one day: planned from the day's figures, written once, and written again identically when one is missing."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.charge_files import Wanted, write_charges
from switch.clearing.charges import CHARGES
from switch.clearing.copying import Blocks, copied
from switch.clearing.disputes.outgoing import settle_lines
from switch.clearing.files import (
    BUFFER_BYTES,
    CRLF,
    UNMARKED,
    FileInMaking,
    FileName,
    FileStatus,
    Head,
    Written,
    fault_of,
    mark_complete,
    parse_name,
    promised_digest,
    sync_folder,
)
from switch.clearing.hot_list_files import HOT_LIST_LINES, plan_hot_lists
from switch.clearing.layouts import LAYOUTS, Value, share_of_total, write_line
from switch.clearing.lines import ANSWER_LINES, DECIDED_LINES, DISPUTE_LINES, FORWARDED_LINES, REFUSAL_LINES
from switch.clearing.signatures import Signer, sign_files
from switch.storage.sql import load

SQL = load("switch.clearing")

PUBLISH_AT_ONCE = (
    16  # files whose names are forced out and marked complete together; those of merchants all at the end
)
LINES_AT_ONCE = 8192  # of the files of offline records

Connection = AsyncConnection[tuple[Any, ...]]


class DayTerms(NamedTuple):
    """What was settled at the first close of a day and holds for every run after it."""

    day: date
    created_at: datetime
    settlement_date: date
    own_id: str
    centre_id: str
    shards: tuple[int, ...]


class FileRow(NamedTuple):
    """A row of clearing_file. party: institution or merchant id; sm3: upper-case hex, None while not written.

    signature: hex, None where the file is not signed.
    """

    name: str
    party: str
    party_no: int | None
    line_count: int
    total_fen: int
    sm3: str | None
    size_bytes: int | None
    signature: str | None = None


class PlannedFile(NamedTuple):
    """A file that a day will have. party, party_no: as in FileRow; of a DT the number of the file that it answers, None of one with later decisions."""

    name: str
    party: str
    party_no: int | None
    line_count: int
    total_fen: int


class FileState(NamedTuple):
    """A file as found on disk. fault: empty when it is whole and marked complete."""

    row: FileRow
    fault: str


async def read_rows(connection: Connection, day: date) -> list[FileRow]:
    """The files of a day in the order in which they are written."""
    cursor = await connection.execute(SQL["files"], {"day": day})
    return [
        FileRow(name, party, party_no, lines, total, sm3.upper() if sm3 else None, size, signature)
        for name, party, party_no, lines, total, sm3, size, signature in await cursor.fetchall()
    ]


def inspect(folder: Path, row: FileRow) -> FileState:
    """Compare a file on disk with its stored digest."""
    path = folder / row.name
    fault = fault_of(path, row.sm3, row.size_bytes)
    if fault in ("", UNMARKED) and row.signature is not None:
        fault = fault if _holds(path.with_name(f"{row.name}.sig"), row.signature) else UNSIGNED
    return FileState(row, fault)


UNSIGNED = "its signature is missing or another"


def _holds(path: Path, content: str) -> bool:
    try:
        return path.read_bytes() == bytes.fromhex(content)
    except OSError:
        return False


class DayFiles:
    """Plans and writes the files of one day into one folder.

    tell: called with (lines written, lines to write) now and then. signer: signs what is written for the first time.
    """

    def __init__(
        self,
        connection: Connection,
        folder: Path,
        terms: DayTerms,
        tell: Callable[[int, int], None],
        signer: Signer | None = None,
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._terms = terms
        self._tell = tell
        self._signer = signer
        self._batch: list[Written] = []
        self._rows: Mapping[str, FileRow] = {}
        self._done = self._total = 0
        self._came: dict[str, tuple[int, int]] | None = None

    async def _rows_of(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(SQL[query], {"day": self._terms.day, **values})
        return await cursor.fetchall()

    def _name(self, kind: str, receiver: str) -> str:
        return str(FileName(kind, self._terms.centre_id, receiver, self._terms.day))

    async def plan(
        self,
        interop_centre: str,
        forwarded: tuple[int, int],
        answers: Iterable[PlannedFile] = (),
        hot_list_for: Sequence[str] = (),
    ) -> None:
        """Settle which files there are, with their counts and totals. In the caller's transaction, once per day.

        forwarded: count and amount of records of other cities' cards, which go to that centre if there is one. answers: DT files
        about our cards elsewhere. hot_list_for: acquirers that get the hot list.
        """
        plan: list[tuple[str, str, int | None, int, int]] = []
        members = [row[0] for row in await self._rows_of("members")]
        positions = await self._small_lines("NP", "")
        for member, count, volume_fen in await self._rows_of("plan_members", members=members):
            plan.append((self._name("NP", member), member, None, len(positions), _total("NP", positions)))
            plan.append((self._name("CM", member), member, None, count, volume_fen))
        for acquirer, refusals, refused_fen in await self._rows_of("plan_senders"):
            for kind in ("NS", "QS"):
                lines = await self._small_lines(kind, acquirer)
                plan.append((self._name(kind, acquirer), acquirer, None, len(lines), _total(kind, lines)))
            plan.append((self._name("SS", acquirer), acquirer, None, refusals, refused_fen))
        for merchant_no, merchant_id, count, net_fen in await self._rows_of("plan_merchants"):
            plan.append((self._name("MR", f"{merchant_no:08d}"), merchant_id, merchant_no, count, net_fen))
        for merchant_no, merchant_id, count, paid_fen in await self._rows_of("plan_transit"):
            plan.append((self._name("TR", f"{merchant_no:08d}"), merchant_id, merchant_no, count, paid_fen))
        if interop_centre and forwarded[0]:
            name = FileName("FH", self._terms.own_id, interop_centre, self._terms.day)
            plan.append((str(name), interop_centre, None, *forwarded))
        plan += answers
        for member, count, credits_fen in await settle_lines(self._connection, self._terms.day):
            plan.append((self._name("ER", member), member, None, count, credits_fen))
        for listed in await plan_hot_lists(self._connection, self._terms.day, hot_list_for):
            name = FileName(listed.kind, self._terms.own_id, listed.acquirer, self._terms.day)
            plan.append((str(name), listed.acquirer, None, listed.lines, listed.version))
        names, parties, party_nos, counts, totals = zip(*plan, strict=True)
        await self._connection.execute(
            SQL["plan_file"],
            {
                "day": self._terms.day,
                "names": list(names),
                "ordinals": list(range(1, len(names) + 1)),
                "parties": list(parties),
                "party_nos": list(party_nos),
                "line_counts": list(counts),
                "totals": list(totals),
            },
        )

    async def write_missing(self) -> list[str]:
        """Write what is not on disk as it should be; returns the names written. Raises FolderError when the disk refuses."""
        rows = await read_rows(self._connection, self._terms.day)
        states = [inspect(self._folder, row) for row in rows]
        for state in states:
            if state.fault in (UNSIGNED, UNMARKED):
                assert state.row.sm3 is not None
                whole = [Written(state.row.name, state.row.sm3, 0)]
                await sign_files(self._connection, self._folder, whole, self._signer)
                mark_complete(self._folder, whole)
        missing = [state.row for state in states if state.fault not in ("", UNSIGNED, UNMARKED)]
        self._rows = {row.name: row for row in missing}
        self._done, self._total = 0, sum(row.line_count for row in missing)
        long: dict[str, list[FileRow]] = {"CM": [], "MR": []}
        for row in missing:
            if row.sm3 is not None:
                self._folder.joinpath(f"{row.name}.ok").unlink(missing_ok=True)
            if row.name[:2] in long:
                long[row.name[:2]].append(row)
            else:
                await self._write_one(row)
        await self._write_charges(
            long["CM"],
            long["MR"],
            every=sum(map(len, long.values())) == sum(row.name[:2] in long for row in rows),
        )
        await self._publish()
        return [row.name for row in missing]

    async def _write_one(self, row: FileRow) -> None:
        kind = row.name[:2]
        with self._begin(row) as file:
            query = _STREAMED.get(kind)
            if kind == "DT" and row.party_no is None:
                query = DECIDED_LINES
            if query is not None:
                parties = {"member": row.party, "acquirer": row.party, "file_no": row.party_no}
                async with aclosing(self._stream(query, **parties)) as blocks:
                    async for lines in blocks:
                        file.add_block(_with_crlf(lines), len(lines))
            else:
                for values in await self._small_lines(kind, row.party):
                    file.add(write_line(LAYOUTS[kind], values).encode())
            self._batch.append(file.finish())
        if len(self._batch) >= PUBLISH_AT_ONCE:
            await self._publish()

    async def _write_charges(
        self, members: Sequence[FileRow], merchants: Sequence[FileRow], *, every: bool
    ) -> None:
        """The files with a line for every transaction, out of one pass. every: all of them are wanted."""
        of_members, of_merchants = await write_charges(
            self._charges(members, merchants, every=every),
            [Wanted(row.party, partial(self._begin, row)) for row in members],
            [Wanted(row.party_no or 0, partial(self._begin, row)) for row in merchants],
            f"{self._terms.day:%Y%m%d}",
        )
        self._batch += of_members
        await self._publish()
        self._batch += of_merchants

    def _begin(self, row: FileRow, buffer_bytes: int = BUFFER_BYTES) -> FileInMaking:
        """A file that is made for the first time, and lies there complete, was made before the database was restored: it must be the same."""
        promised = promised_digest(self._folder / row.name) if row.sm3 is None else ""
        return FileInMaking(self._folder, self._head(row), buffer_bytes, promised=promised)

    async def _charges(
        self, members: Sequence[FileRow], merchants: Sequence[FileRow], *, every: bool
    ) -> Blocks:
        lines = sum(row.line_count for row in (*members, *merchants))
        if not lines:
            return
        wanted = {
            "day": self._terms.day,
            "every": every,
            "members": [row.party for row in members],
            "merchants": [row.party_no for row in merchants],
        }
        begun_at, read = self._done, 0
        async with aclosing(copied(self._connection, CHARGES, wanted)) as blocks:
            async for messages in blocks:
                read += len(messages)
                # Most are a line of a member and a line of a merchant.
                self._done = begun_at + min(lines, 2 * read)
                self._tell(self._done, self._total)
                yield messages
        self._done = begun_at + lines

    def _head(self, row: FileRow) -> Head:
        return Head(parse_name(row.name), self._terms.created_at, row.line_count, row.total_fen)

    async def _publish(self) -> None:
        """Names forced out, then the digests stored, then the signatures, then the files marked complete."""
        if not self._batch:
            return
        sync_folder(self._folder)
        fresh = []
        for written in self._batch:
            row = self._rows[written.name]
            if row.sm3 is None:
                fresh.append(written)
            else:
                assert row.sm3 == written.sm3, f"{written.name}: the same day has given other bytes"
        await self._connection.execute(
            SQL["store_digests"],
            {
                "day": self._terms.day,
                "names": [written.name for written in fresh],
                "sm3s": [written.sm3 for written in fresh],
                "sizes": [written.size for written in fresh],
            },
        )
        await sign_files(self._connection, self._folder, self._batch, self._signer)
        mark_complete(self._folder, self._batch)
        self._batch = []

    async def _stream(self, query: str, **values: object) -> AsyncGenerator[list[bytes], None]:
        """Lines of a COPY in blocks, each line with its line feed: the server sends one message per row."""
        if not self._total:
            return
        lines: list[bytes] = []
        async with (
            self._connection.cursor() as cursor,
            cursor.copy(query, {"day": self._terms.day, **values}) as rows,
        ):
            async for data in rows:
                lines.append(bytes(data))
                if len(lines) == LINES_AT_ONCE:
                    self._done += len(lines)
                    self._tell(self._done, self._total)
                    yield lines
                    lines = []
        self._done += len(lines)
        if lines:
            yield lines

    async def _came_from(self, acquirer: str) -> list[tuple[int, int]]:
        """Count and amount of the records that came one by one; none where there were none. Asked once for all acquirers."""
        if self._came is None:
            self._came = {row[0]: (row[1], row[2]) for row in await self._rows_of("lines_ns")}
        return [self._came[acquirer]] if acquirer in self._came else []

    async def _small_lines(self, kind: str, party: str) -> list[dict[str, Value]]:
        """Lines of the files that have few, as values."""
        if kind == "NP":
            lines = [dict(zip(_NP_FIELDS, row, strict=True)) for row in await self._rows_of("lines_np")]
        elif kind == "QS":
            dates = {
                "clearing_date": f"{self._terms.day:%Y%m%d}",
                "settlement_date": f"{self._terms.settlement_date:%Y%m%d}",
            }
            lines = [
                dict(zip(_QS_FIELDS, row, strict=True)) | dates
                for row in await self._rows_of("lines_qs", acquirer=party)
            ]
        elif kind == "TR":
            lines = [
                dict(zip(_TR_FIELDS, row, strict=True)) | {"clearing_date": f"{self._terms.day:%Y%m%d}"}
                for row in await self._rows_of("lines_tr", merchant=party)
            ]
        else:
            source = FileName("XF", party, self._terms.centre_id, self._terms.day, 0)
            lines = [
                {"file": str(source), "count": count, "amount": amount_fen, "status": FileStatus.TAKEN}
                for count, amount_fen in await self._came_from(party)
            ] + [
                {"file": name, "count": count, "amount": amount_fen, "status": status}
                for name, count, amount_fen, status in await self._rows_of("files_ns", acquirer=party)
            ]
        return [{"line_no": number, **values} for number, values in enumerate(lines, 1)]


_NP_FIELDS = (
    "institution",
    "issuing_count",
    "issuing",
    "acquiring_count",
    "acquiring",
    "issuer_fee",
    "fees_paid",
    "net",
)
_QS_FIELDS = (
    "merchant",
    "confirmed_count",
    "confirmed",
    "refused_count",
    "refused",
    "adjusted_count",
    "adjusted",
    "adjust_refused_count",
    "adjust_refused",
    "fee",
    "net",
)


_TR_FIELDS = tuple(field.name for field in LAYOUTS["TR"].fields[2:-1])
_STREAMED = {
    "SS": REFUSAL_LINES,
    "FH": FORWARDED_LINES,
    "DT": ANSWER_LINES,
    "ER": DISPUTE_LINES,
    "BF": HOT_LIST_LINES,
    "BI": HOT_LIST_LINES,
}


def _with_crlf(lines: list[bytes]) -> bytes:
    """Lines as COPY's text format sends them, as lines of a file: it doubles backslashes and ends rows with a line feed."""
    block = b"".join(lines)
    if b"\\" in block:
        block = block.replace(b"\\\\", b"\\")
    return block.replace(b"\n", CRLF)


def _total(kind: str, lines: Iterable[Mapping[str, Value]]) -> int:
    return sum(share_of_total(LAYOUTS[kind], values) for values in lines)
