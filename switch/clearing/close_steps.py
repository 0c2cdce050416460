"""The steps of a close (close.py): what each does, what of the day it reads and makes, and the run that takes them in order."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psycopg

from switch.clearing import day_reports
from switch.clearing.day_files import SQL, Connection, DayFiles, DayTerms
from switch.clearing.evidence.sealing import (
    SealSigner,
    TreeAhead,
    seal_day_and_files,
    write_seal,
)
from switch.clearing.fee_changes import SQL as FEES_SQL
from switch.clearing.foreign import SQL as FOREIGN_SQL
from switch.clearing.foreign import Deadline, accept_unanswered
from switch.clearing.netting import Flow, net_positions
from switch.clearing.own_cards import SQL as OWN_CARDS_SQL
from switch.clearing.own_cards import plan_answers
from switch.clearing.resends import complete_resends
from switch.clearing.signatures import Signer
from switch.clearing.step_digests import digest_of_parts
from switch.domain.calendar import CUT_OFF
from switch.domain.errors import SwitchError
from switch.ledger.chart import Code, Event, legs
from switch.ledger.days import Day, cut_over, day_of, ensure_days, seal_day
from switch.ledger.fold import fold_all
from switch.ledger.serials import BLOCK
from switch.purse.shadow import adjudicate, fold_purses
from switch.purse.trips import SQL as TRIPS_SQL
from switch.purse.trips import collect_day, fold_trips

ERROR_MAX = 500  # characters of what is kept of an error


class Progress(NamedTuple):
    """Told while a day is closed. total is 0 where a step has no measure; finished: the step is done."""

    step: str
    done: int = 0
    total: int = 0
    finished: bool = False
    outcome: dict[str, Any] | None = None


class CloseTerms(NamedTuple):
    """What the operator's settings say about closing. shards: every shard that any process books in.

    interop_centre: where records of other cities' cards go; empty: nowhere. deadline: until when their cities may answer.
    signer: who signs the day's seal; None: nobody.
    file_signer: signs the files; None: they are not signed.
    may_end: whether a day that is still open is ended by closing it; without that it is refused.
    parallel_workers: processes that PostgreSQL may take beside the first for a query; terminals go on paying meanwhile.
    hot_list_for: acquirers that get the hot list with a day's files.
    connect: opens a second connection, on which the day's tree is read while its files are written; None: it is read after them.
    """

    own_id: str
    centre_id: str
    acquirer_code: str
    shards: tuple[int, ...]
    folder: Path
    is_workday: Callable[[date], bool]
    cut_off: time = CUT_OFF
    lead_s: float = 2.0
    seal_wait_s_max: float = 60.0
    interop_centre: str = ""
    deadline: Deadline = Deadline()
    signer: SealSigner | None = None
    file_signer: Signer | None = None
    may_end: bool = True
    parallel_workers: int = 1
    hot_list_for: Sequence[str] = ()
    connect: Callable[[], Awaitable[Connection]] | None = None


def told(error: Exception) -> str:
    """What went wrong, for people. Ours says it; a driver's may quote a row, so only its kind and code are given."""
    if isinstance(error, SwitchError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or type(error).__name__}: {error.strerror}"
    code = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' {code}' if code else ''}"


def day_folder(folder: Path, day: date) -> Path:
    """Where the files of a day lie."""
    return folder / f"{day:%Y%m%d}"


Outcome = dict[str, Any]


class Run:
    """One run over the steps of one day."""

    def __init__(
        self,
        connection: Connection,
        day: DayTerms,
        terms: CloseTerms,
        actor: str,
        tell: Callable[[Progress], None],
    ) -> None:
        self.connection = connection
        self.day = day
        self.terms = terms
        self.actor = actor
        self.tell = tell
        self.folder = day_folder(terms.folder, day.day)
        self.written: list[str] = []
        self.reported: list[str] = []
        self.tree_ahead: TreeAhead | None = None

    async def steps(self) -> None:
        """Do what is not done yet, in order."""
        try:
            await self._steps()
        finally:
            if self.tree_ahead is not None:
                await self.tree_ahead.end()

    async def _steps(self) -> None:
        cursor = await self.connection.execute(SQL["steps"], {"day": self.day.day})
        done = {row[0] for row in await cursor.fetchall() if row[1] == "DONE"}
        for ordinal, step in enumerate(STEPS, 1):
            if step.name in done:
                continue
            self.tell(Progress(step.name))
            read = await digest_of_parts(self.connection, self.day.day, step.reads)
            await self.connection.execute(
                SQL["start_step"],
                {
                    "day": self.day.day,
                    "step": step.name,
                    "ordinal": ordinal,
                    "actor": self.actor,
                    "read": read,
                },
            )
            try:
                outcome = await self._do(step)
            except Exception as error:
                await self._note(step, error)
                raise
            self.tell(Progress(step.name, finished=True, outcome=outcome))
        await self.connection.execute(SQL["close_day"], {"day": self.day.day})
        self.tell(Progress("done", finished=True))

    async def _do(self, step: "Step") -> Outcome:
        if step.atomic:
            async with self.connection.transaction():
                outcome = await step.work(self)
                await self._finish(step, outcome)
        else:
            outcome = await step.work(self)
            await self._finish(step, outcome)
        return outcome

    async def _finish(self, step: "Step", outcome: Outcome) -> None:
        made = await digest_of_parts(self.connection, self.day.day, step.makes)
        said = orjson.dumps(outcome, default=str).decode()
        await self.connection.execute(
            SQL["finish_step"], {"day": self.day.day, "step": step.name, "outcome": said, "made": made}
        )

    async def _note(self, step: "Step", error: Exception) -> None:
        """Leave in the table why a step ended, for whoever looks; where the database is away, the log has it."""
        with contextlib.suppress(psycopg.Error):
            await self.connection.execute(
                SQL["note_step"], {"day": self.day.day, "step": step.name, "error": told(error)[:ERROR_MAX]}
            )

    async def _execute(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(SQL[query], {"day": self.day.day, **values})
        return await cursor.fetchall() if cursor.description else []

    async def _figures(self, query: str) -> Outcome:
        cursor = await self.connection.execute(SQL[query], {"day": self.day.day})
        row = await cursor.fetchone()
        assert row is not None
        assert cursor.description is not None
        return {column.name: value for column, value in zip(cursor.description, row, strict=True)}

    async def cut_over(self) -> Outcome:
        await ensure_days(self.connection, cut_off=self.terms.cut_off)
        if self.terms.may_end:
            row = await cut_over(self.connection, self.day.day, self.terms.lead_s)
        else:  # it is past its end; if a clock is set back now, the seal waits or refuses, and nothing ends early
            row = await self._stored()
        return {"ends_at": row.ends_at.isoformat()}

    async def _stored(self) -> Day:
        row = await day_of(self.connection, self.day.day)
        assert row is not None
        return row

    async def seal(self) -> Outcome:
        shards = sorted(
            {*self.day.shards, *self.terms.shards}
        )  # more may have been added since the close began
        row = await seal_day(self.connection, self.day.day, shards, self.terms.seal_wait_s_max)
        assert row.sealed_at is not None
        for table in ("journal", "posting", "purse_record"):
            # Fresh partitions have no statistics, and the plans of this night depend on them.
            await self.connection.execute(f"ANALYZE {table}_{self.day.day:%Y%m%d}")
        return {"sealed_at": row.sealed_at.isoformat()}

    async def adjudicate(self) -> Outcome:
        greys = await adjudicate(self.connection, self.day.day)
        unanswered = await accept_unanswered(self.connection, self.day.day, self.terms.deadline)
        return {**greys._asdict(), "unanswered": unanswered}

    async def fold(self) -> Outcome:
        await fold_all(self.connection, self.terms.shards)
        await fold_trips(self.connection)
        await collect_day(self.connection, self.day.day)
        return {"records": await fold_purses(self.connection)}

    async def fees(self) -> Outcome:
        await self._execute("name_legs")
        await self.connection.execute("ANALYZE named_leg")
        await self._execute("freeze_legs")
        await self._execute("freeze_adjusted_legs")
        await self.connection.execute("ANALYZE clearing_leg")
        for query in ("name_keys", "name_senders", "freeze_merchants", "freeze_rules", "name_originals"):
            await self._execute(query)
        await self.connection.execute("ANALYZE named_original")
        for original_date, _ in await self._execute("original_dates"):
            await self._execute("freeze_originals", original_date=original_date)
        await self._execute("freeze_original_records")
        for table in ("clearing_merchant", "clearing_rule", "clearing_original"):
            await self.connection.execute(f"ANALYZE {table}")
        await self._execute("freeze_source_lines")
        await self._execute("freeze_adjusted")
        for query in ("sum_charges", "summarise", "sum_offline", "summarise_offline"):
            await self._execute(query)
        await self.connection.execute(OWN_CARDS_SQL["summarise"], {"day": self.day.day})
        for step in ("freeze_transit", "note_transit"):
            await self.connection.execute(TRIPS_SQL[step], {"day": self.day.day})
        await self.connection.execute(FEES_SQL["freeze_subsidies"], {"day": self.day.day})
        return await self._figures("fees_outcome")

    async def netting(self) -> Outcome:
        netting = net_positions(Flow(*row) for row in await self._execute("flows"))
        for ordinal, position in enumerate(netting.positions, 1):
            await self._execute(
                "add_position",
                ordinal=ordinal,
                institution=position.institution,
                issuing_count=position.issuing_count,
                issuing_fen=position.issuing_fen,
                acquiring_count=position.acquiring_count,
                acquiring_fen=position.acquiring_fen,
                issuer_fee_fen=position.issuer_fee_fen,
                fees_paid_fen=position.fees_paid_fen,
                net_fen=position.net_fen,
            )
        nets = {position.institution: position.net_fen for position in netting.positions}
        return {"net_fen": nets, "centre_fen": netting.centre_fen}

    async def postings(self) -> Outcome:
        payable, income = legs(Event.FEE_OWN)
        _, others = legs(Event.FEE_OTHERS)
        await self._execute("fee_shares", payable=int(payable), income=int(income), others=int(others))
        cursor = await self.connection.execute("SELECT count(*) FROM fee_share")
        row = await cursor.fetchone()
        assert row is not None
        blocks = -(-row[0] // BLOCK)
        cursor = await self.connection.execute(
            "SELECT (nextval('entry_no_block') - 1) * %s + 1 FROM generate_series(1, %s)", (BLOCK, blocks)
        )
        serials = [block[0] for block in await cursor.fetchall()]
        await self._execute("post_fees", serials=serials, block=BLOCK)
        await day_reports.freeze_movements(self.connection, self.day.day)
        await self._execute("float_statement", codes=[int(code) for code in Code])
        await self._execute("memo_grey", memo=int(Code.MEMO_GREY))
        figures = await self._figures("postings_outcome")
        assert figures["debits_fen"] == figures["credits_fen"], "a posting debits what it credits"
        return figures

    async def files(self) -> Outcome:
        await self.connection.execute(
            "SET enable_nestloop = off"
        )  # millions of rows, whatever the estimates say
        if self.terms.connect is not None:
            self.tree_ahead = TreeAhead(self.terms.connect, self.day.day)
        files = self._files("files", self.terms.file_signer)
        cursor = await self.connection.execute(SQL["files"], {"day": self.day.day})
        if not await cursor.fetchall():
            async with self.connection.transaction():
                answers = await plan_answers(self.connection, self.day.day, self.day.own_id)
                await files.plan(
                    self.terms.interop_centre, await self._forwarded(), answers, self.terms.hot_list_for
                )
        self.written += await files.write_missing()
        return await self._figures("files_outcome")

    async def evidence(self) -> Outcome:
        return await seal_day_and_files(
            self.connection,
            self.day.day,
            self.day.own_id,
            self.folder,
            self.terms.signer,
            lambda done, total: self.tell(Progress("evidence", done, total)),
            self.tree_ahead,
        )

    async def reports(self) -> Outcome:
        if not await day_reports.has_reports(self.connection, self.day.day):
            async with self.connection.transaction():
                await day_reports.freeze(self.connection, self.day.day)
        await self._write_reports()
        cursor = await self.connection.execute(day_reports.SQL["reports_outcome"], {"day": self.day.day})
        row = await cursor.fetchone()
        assert row is not None
        return dict(zip(("reports", "rows", "bytes"), row, strict=True))

    async def _write_reports(self) -> None:
        self.reported += await day_reports.write_missing(self.connection, self.terms.folder, self.day.day)

    async def _forwarded(self) -> tuple[int, int]:
        cursor = await self.connection.execute(FOREIGN_SQL["plan_forward"], {"day": self.day.day})
        row = await cursor.fetchone()
        assert row is not None
        return row[0], row[1]

    async def check_files(self) -> None:
        """Of a closed day: compare every file with its digest and write again what is missing or was changed."""
        self.tell(Progress("check files"))
        self.written += await self._files("check files").write_missing()
        self.written += await complete_resends(
            self.connection, self.folder, self.day.day, self.terms.file_signer
        )
        self.written += await write_seal(self.connection, self.day.day, self.folder)
        await self._write_reports()
        outcome = {"rewritten": len(self.written), "reports_rewritten": len(self.reported)}
        self.tell(Progress("check files", finished=True, outcome=outcome))

    def _files(self, step: str, signer: Signer | None = None) -> DayFiles:
        return DayFiles(
            self.connection,
            self.folder,
            self.day,
            lambda done, total: self.tell(Progress(step, done, total)),
            signer,
        )


class Step(NamedTuple):
    """atomic: the work and the mark that it is done are one transaction; others can be done twice without harm.

    reads, makes: parts of the day (step_digests.sql) that go into its digests.
    """

    name: str
    work: Callable[[Run], Awaitable[Outcome]]
    atomic: bool
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


_FEES = ("merchants", "rules", "frozen", "summary", "offline", "transit")

STEPS: Sequence[Step] = (
    Step("cut-over", Run.cut_over, atomic=False, reads=("terms",), makes=("ends",)),
    Step("seal", Run.seal, atomic=False, reads=("ends",), makes=("sealed",)),
    Step("adjudicate", Run.adjudicate, atomic=False, reads=("sealed",), makes=("decisions",)),
    Step("fold", Run.fold, atomic=False, reads=("decisions",), makes=("trips",)),
    Step("fees", Run.fees, atomic=True, reads=("decisions", "trips"), makes=_FEES),
    Step("netting", Run.netting, atomic=True, reads=("merchants", "summary"), makes=("positions",)),
    Step("postings", Run.postings, atomic=True, reads=("merchants", "summary"), makes=("movements", "float")),
    Step(
        "files",
        Run.files,
        atomic=False,
        reads=("positions", "summary", "offline", "transit"),
        makes=("files",),
    ),
    Step(
        "reports",
        Run.reports,
        atomic=False,
        reads=("positions", "summary", "movements", "float"),
        makes=("reports",),
    ),
    Step(
        "evidence",
        Run.evidence,
        atomic=False,
        reads=("files",),
        makes=("root",),
    ),
)
