"""Visits to partners as the settings say: each over a line of its own and at his own pace, one deliverer for a partner.

It is a process of its own beside those that serve terminals: digests of gigabytes and files that are taken whole would keep answers waiting.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.clearing.close import day_folder
from switch.clearing.deliveries import Deliveries, PartnerTerms, plain
from switch.clearing.delivery_inbox import Take, Taken
from switch.clearing.delivery_round import Round, Visit
from switch.clearing.files import parse_name
from switch.clearing.received import Terms, take_file
from switch.clearing.reconcile.blocks import KIND as COMPARED
from switch.clearing.remote import HostKeyRefused
from switch.clearing.taking import TAKEN, kinds
from switch.domain.errors import ConfigurationError, DatabaseLost, InputRefused, SwitchError
from switch.keys.opening import open_vault
from switch.operations.commands.asking import actor
from switch.operations.commands.interop_terms import centre_terms
from switch.operations.commands.reconcile import take_all as take_compared
from switch.purse.intake import DigestAll, inline_tacs
from switch.settings import PartnerSettings, Settings
from switch.storage.pool import LOST, connect, connect_writer, end_tasks, plan_once
from switch.transports.sftp_partner import LineTerms, sftp_line

log = structlog.get_logger(__name__)

PARTNERS_AT_ONCE: Final = 16  # each with a connection to the database or two

Connection = AsyncConnection[Any]


def partner_terms(at: PartnerSettings) -> PartnerTerms:
    """What is agreed with a partner."""
    return PartnerTerms(
        name=at.name,
        parties=at.parties,
        types=at.types,
        since=at.since,
        folder=at.folder.rstrip("/"),
        outbox=at.outbox.rstrip("/"),
        sends=at.sends,
        answers=at.answers,
        late_hours=at.late_hours,
        fetch_bytes_max=at.fetch_mb_max << 20,
        pause_s=at.pause_s,
        pause_max_s=at.pause_max_s,
    )


def line_terms(at: PartnerSettings) -> LineTerms:
    """The line to him."""
    return LineTerms(
        host=at.host,
        port=at.port,
        user=at.user,
        key_file=at.key_file,
        host_key=at.host_key,
        known_hosts=at.known_hosts,
        connect_s=at.connect_s,
        answer_s=at.answer_s,
    )


class Deliverer:
    """Visits partners. url: of the database."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._digest_all: DigestAll | None = None

    def chosen(self, names: Collection[str] = ()) -> list[PartnerSettings]:
        """The partners of these names, all when none is named."""
        known = {partner.name: partner for partner in self._settings.delivery.partners}
        if not known:
            raise ConfigurationError("delivery.partners: there are none")
        for name in names:
            if name not in known:
                raise InputRefused(f"{name} is not among delivery.partners: {', '.join(known)}")
        return [partner for name, partner in known.items() if not names or name in names]

    async def once(self, names: Collection[str] = (), *, only_due: bool = False) -> list[Visit]:
        """Visit partners side by side. only_due: not those whose pause after a failure is not over."""
        room = asyncio.Semaphore(PARTNERS_AT_ONCE)

        async def visit(partner: PartnerSettings) -> Visit | None:
            async with room:
                return await self._visit(partner, only_due=only_due)

        visits = await asyncio.gather(*(visit(partner) for partner in self.chosen(names)))
        return [visit for visit in visits if visit is not None]

    async def keep_on(self, stopping: asyncio.Event) -> None:
        """Visit until told to stop, which ends visits where they are. A database that is lost is waited for."""
        room = asyncio.Semaphore(PARTNERS_AT_ONCE)
        loop = asyncio.get_running_loop()
        visiting = [loop.create_task(self._keep_visiting(partner, room)) for partner in self.chosen()]
        stopped = loop.create_task(stopping.wait())
        try:
            await asyncio.wait((stopped, *visiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(stopped, *visiting)  # a visit may be ended at any step; the next one goes on
        for task in visiting:
            if not task.cancelled():
                task.result()  # it works for as long as the process, so whatever ended it before is a fault of ours

    async def _keep_visiting(self, partner: PartnerSettings, room: asyncio.Semaphore) -> None:
        """Visit one partner until cancelled: one who is slow keeps nobody waiting but himself."""
        while True:
            try:
                async with room:
                    visit = await self._visit(partner, only_due=True)
                if visit is not None and (visit.sent or visit.fetched or visit.receipts):
                    log.info(
                        "partner visited",
                        partner=visit.partner,
                        sent=len(visit.sent),
                        receipts=visit.receipts,
                        fetched=len(visit.fetched),
                    )
            except (DatabaseLost, psycopg.Error, OSError) as error:
                log.warning(
                    "a partner was not visited; tried again", partner=partner.name, error=type(error).__name__
                )
            await asyncio.sleep(self._settings.delivery.every_s)

    async def _visit(self, at: PartnerSettings, *, only_due: bool) -> Visit | None:
        terms = partner_terms(at)
        try:
            async with await connect(self._url) as connection:
                deliveries = Deliveries(connection, terms)
                if only_due and not (await deliveries.execute("line_due"))[0][0]:
                    return None
                try:
                    async with deliveries.alone():
                        return await self._with_lock(deliveries, at)
                except InputRefused as refused:
                    if only_due:
                        return None  # another process is at it
                    return Visit(terms.name, fault=str(refused))
        except LOST as error:
            raise DatabaseLost(
                "the database was lost; what was being delivered goes on at the next visit"
            ) from error

    async def _with_lock(self, deliveries: Deliveries, at: PartnerSettings) -> Visit:
        terms = deliveries.partner
        try:
            await deliveries.queue()
            await deliveries.look_if_behind()
            async with sftp_line(line_terms(at)) as remote, self._taking() as take:
                folder = self._settings.clearing_folder
                inbox = folder / "inbox" / terms.name
                visiting = Round(deliveries, remote, lambda day: day_folder(folder, day), inbox, take)
                try:
                    async with asyncio.timeout(at.visit_max_s) as limit:  # each step may be just quick enough
                        visit = await visiting.run()
                except TimeoutError:
                    if not limit.expired():
                        raise
                    visit = visiting.so_far(
                        f"not done in {at.visit_max_s:g} s (visit_max_s); the next visit goes on"
                    )
        except HostKeyRefused as fault:
            await deliveries.alarm("HOST_KEY", fault.fingerprint, str(fault))
            visit = Visit(terms.name, fault=str(fault))
        except (DatabaseLost, *LOST):
            raise
        except psycopg.Error as fault:
            visit = Visit(terms.name, fault=f"the database refused: {type(fault).__name__} {fault.sqlstate}")
        except SwitchError as fault:
            visit = Visit(terms.name, fault=str(fault))
        if visit.fault:
            error = plain(visit.fault)
            await deliveries.execute(
                "line_failed", error=error, pause_s=terms.pause_s, pause_max_s=terms.pause_max_s
            )
            log.warning("a visit failed", partner=terms.name, why=error)
            return visit._replace(fault=error)
        await deliveries.execute("line_good")
        return visit

    @asynccontextmanager
    async def _taking(self) -> AsyncIterator[Take]:
        """Take files in, over a connection that is made when the first one comes."""
        held: list[Connection] = []

        async def take(path: Path) -> Taken | None:
            kind = parse_name(path.name).kind
            if kind == COMPARED:
                (receipt,) = await take_compared(self._url, self._settings, [path])
                return receipt
            if kind not in TAKEN:
                return None
            if not held:
                held.append(await connect_writer(self._url))
                await plan_once(held[0])
            centre = centre_terms(self._settings) if self._settings.interop.serve else None
            kind_of = kinds(held[0], self._terms(), await self._digests(), centre)
            return await take_file(held[0], path, self._terms(), kind_of)

        try:
            yield take
        finally:
            for connection in held:
                await connection.close()

    async def _digests(self) -> DigestAll:
        if self._digest_all is None:
            self._digest_all = await asyncio.to_thread(self._open_vault)
        return self._digest_all

    def _open_vault(self) -> DigestAll:
        with psycopg.connect(self._url) as connection:
            return inline_tacs(open_vault(connection, self._settings.unlock))

    def _terms(self) -> Terms:
        at, centre = self._settings.institution, self._settings.interop.centre_id
        return Terms(at.own_id, at.centre_id, self._settings.database.shards, actor(), centre)
