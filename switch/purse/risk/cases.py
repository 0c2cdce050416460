"""Marking: what the rules in force find becomes cases, one per matter, which people close with a verdict and a reason.

A run takes the records behind a watermark, as the fold does, so each is looked at once its transaction is over and in no other
process at the same time. It changes no book and refuses no record. What people said of a case is the label by which rules are tried.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.purse.risk.features import LOOKBACK_DAYS
from switch.purse.risk.replay import ask, bound, find
from switch.purse.risk.rules import RulesRefused
from switch.purse.risk.versions import in_force

log = structlog.get_logger(__name__)

RECORDS_PER_RUN: Final = 1_000_000
HITS_PER_RULE: Final = 10_000  # of one run: a rule that marks more says nothing
REASON_MAX: Final = 200
LISTED_MAX: Final = 1_000
CONFIRMED, FALSE = "CONFIRMED", "FALSE"

Connection = AsyncConnection[Any]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class Watch(Protocol):
    """Who counts."""

    def risk_marked(self, hits: Mapping[str, int]) -> None:
        """So many records were marked, by rule."""

    def risk_open(self, cases: Mapping[str, int], since: datetime | None) -> None:
        """So many cases are open, by rule; the oldest since then."""


class Run(NamedTuple):
    """What one run did. records: that were new. hits: new ones, by rule. cut: rules that found more than is marked. version: 0 for none."""

    version: int
    records: int
    hits: Mapping[str, int]
    cut: tuple[str, ...]
    more: bool  # there are records for another run at once


class Case(NamedTuple):
    """A matter. owner: a card masked, a PSAM number or a terminal id."""

    case_no: int
    rule: str
    matter: str
    owner: str
    version: int
    opened_at: datetime
    hits: int
    amount_fen: int
    closed_at: datetime | None
    verdict: str | None
    reason: str | None
    actor: str | None


async def run(
    connection: Connection, *, records_max: int = RECORDS_PER_RUN, hits_max: int = HITS_PER_RULE
) -> Run:
    """Mark what came since the last run, by the rules in force. Safe from several processes: a lock orders them.

    connection: in autocommit mode and not in a transaction. RulesRefused when this build cannot read the rules in force.
    """
    async with connection.transaction():
        await bound(connection)
        await ask(connection, "one_run")
        done_to = (await ask(connection, "read_watermark"))[0][0]
        upto, full_at = (
            await ask(connection, "read_bounds", {"done_to": done_to, "records_max": records_max})
        )[0]
        # A transaction goes whole. One that alone has more records than a run takes goes alone.
        more = full_at is not None and full_at < upto
        if more:
            upto = max(full_at, done_to + 1)
        stored = await in_force(connection)
        window = {"done_to": done_to, "upto": upto}
        records, hits, cut = 0, dict[str, int](), list[str]()
        if stored.version:
            records, first, last = (await ask(connection, "count_new", window))[0]
        if records:
            scope = {"first": first, "last": last, "lookback": LOOKBACK_DAYS, "begins_at": stored.begins_at}
            found = await find(
                connection, stored.rules, "scope_touched", window | scope, "hits", limit=hits_max + 1
            )
            counted = Counter(row[0] for row in found)
            cut = [rule for rule, count in counted.items() if count > hits_max]
            hits = await _write(connection, stored.version, found)
            row = {"version": stored.version, "records": records, "hits": sum(hits.values()), "cut": cut}
            await ask(connection, "write_run", row)
        if upto > done_to:
            await ask(connection, "move_watermark", {"upto": upto})
    return Run(stored.version, records, hits, tuple(cut), more)


async def _write(connection: Connection, version: int, found: Sequence[tuple[Any, ...]]) -> dict[str, int]:
    """Open cases and write hits, none of which is known yet; how many, by rule. From here on the transaction has a number."""
    await ask(connection, "make_found")
    async with connection.cursor() as cursor, cursor.copy("COPY risk_found FROM STDIN") as copy:
        for row in found:
            await copy.write_row(row)
    await ask(connection, "one_writer")
    await ask(connection, "open_cases", {"version": version})
    await ask(connection, "write_hits")
    return dict(await ask(connection, "count_found"))


async def keep_running(connect: Connect, every_s: float, watch: Watch) -> None:
    """Mark until cancelled. A failure is logged and the next round tries again: nothing is lost by marking late."""
    while True:
        more = False
        try:
            async with connect() as connection:
                done = await run(connection)
                more = done.more
                watch.risk_marked(done.hits)
                if done.cut:
                    log.warning("rules marked too much, the rest was left out", rules=list(done.cut))
                watch.risk_open(*await open_cases(connection))
        except psycopg.Error as error:
            log.warning("marking of risks postponed", error=type(error).__name__)
        except RulesRefused:
            log.error("the rules for risk in force cannot be read by this version: `cardswitch risk show`")  # noqa: TRY400  the faults are for the command
        await asyncio.sleep(0 if more else every_s)


async def open_cases(connection: Connection) -> tuple[dict[str, int], datetime | None]:
    """Open cases by rule, and since when the oldest is open."""
    rows = await ask(connection, "count_open")
    return {rule: count for rule, count, _ in rows}, min((row[2] for row in rows), default=None)


async def cases(
    connection: Connection, *, closed: bool = False, rule: str | None = None, limit: int = LISTED_MAX
) -> list[Case]:
    """Cases, the newest first; open ones, or all."""
    asked = {"closed": closed, "rule": rule, "limit": min(limit, LISTED_MAX)}
    found = [Case(*row) for row in await ask(connection, "list_cases", asked)]
    return [case._replace(owner=mask_pan(case.owner)) if case.matter == "card" else case for case in found]


async def close(connection: Connection, case_no: int, verdict: str, *, actor: str, reason: str) -> str:
    """Close a case for good; returns its rule. InputRefused when there is no such open one, or no reason."""
    assert verdict in (CONFIRMED, FALSE)
    reason = reason.strip()
    if not reason or len(reason) > REASON_MAX or not reason.isprintable():
        raise InputRefused(f"reason: must be 1 to {REASON_MAX} printable characters")
    async with connection.transaction():
        await ask(connection, "one_writer")
        values = {"case_no": case_no, "verdict": verdict, "reason": reason, "actor": actor}
        rows = await ask(connection, "close_case", values)
        if not rows:
            known = (await ask(connection, "has_case", {"case_no": case_no}))[0][0]
            raise InputRefused(f"case {case_no}: {'is closed already' if known else 'there is no such case'}")
    return str(rows[0][0])
