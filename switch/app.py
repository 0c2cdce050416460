"""Builds every part, joins them, starts and stops them in order. The only place that knows them all.

Start: database, vault, caches, books, batches, health, and the terminals' port last. Stop (SIGTERM, SIGINT): not ready, no new
connections, what is in flight is answered, then everything in the other order.
"""

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import date, datetime
from typing import Any

import psycopg
import structlog
import uvloop
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from switch.clearing.calendar_cn import horizon
from switch.clearing.close import Progress
from switch.clearing.deliveries import keep_counting as keep_counting_deliveries
from switch.clearing.disputes.keeping import keep_lapsing
from switch.clearing.reconcile.expected import Figures, keep_expecting, told
from switch.clearing.schedule import DayCloser
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import ConfigurationError, DatabaseLost, DependencyError
from switch.keys.opening import activate_proved, open_vault, unlock_secret
from switch.keys.records import KeyRecord
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import DatabaseKeyStore
from switch.keys.vault import Vault
from switch.keys.workers import TacWorkers, VaultSnapshot, tac_records
from switch.keys.zone import Generation
from switch.ledger.books import Books
from switch.ledger.days import adopt_cluster, ensure_days
from switch.ledger.fold import keep_folding
from switch.ledger.load_rows import tell_moves
from switch.ledger.sweeping import keep_sweeping, keep_sweeping_loads
from switch.ledger.terminal_batches import TerminalBatches
from switch.ledger.writer import MessageWriter
from switch.messages.answers import DE39
from switch.operations.api.views import api_app
from switch.operations.closer import close_elsewhere
from switch.operations.http import Readiness, health_app, start_http
from switch.purse.completeness import keep_counting_gaps
from switch.purse.intake import IntakeLanes, IntakeWriter, inline_tacs, pooled_tacs
from switch.purse.risk.cases import keep_running
from switch.purse.shadow import keep_folding_purses
from switch.purse.trips import keep_folding_trips
from switch.registry.bindings import BindingDirectory
from switch.registry.cards import CardDirectory
from switch.registry.invalidation import RegistryListener
from switch.registry.list_keeping import LastSeen, keep_noting, keep_rolling
from switch.registry.list_publication import ListChanges, ListPublication, ListSigner, keep_publishing
from switch.registry.terminals import TerminalDirectory
from switch.routing.batches import BatchDesk
from switch.routing.forwarding import Forwarder, keep_counting
from switch.routing.host_desk import HostDesk
from switch.routing.late_answers import LateAnswers
from switch.routing.purse_batches import PurseBatches
from switch.routing.reception import Reception
from switch.routing.routes import Routes
from switch.settings import Settings, load_settings
from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import require_current
from switch.storage.pool import connect, connect_writer, end_tasks, make_pool
from switch.telemetry import logs
from switch.telemetry.lateness import keep_time
from switch.telemetry.metrics import Metrics
from switch.terms import forward_terms, host_terms, link_terms, mqtt_terms, partner_dues, terminal_limits
from switch.transports.host_links import HostLinks
from switch.transports.mqtt_terminals import MqttTerminals
from switch.transports.tcp_terminals import TerminalListener, server_tls
from switch.workers import deliverer, die_with_parent, further_processes

log = structlog.get_logger(__name__)

DAYS_EVERY_S = 600.0
UPKEEP_CONNECTIONS = 4
API_CONNECTIONS = 2  # of its own, so that no reader holds up a sign-on
ENDS_S = 5.0  # to write down what became of questions to hosts when the service stops


class Service:
    """One serving process. Use: `async with Service(...) as service: await service.until_stopped()`."""

    def __init__(self, settings: Settings, url: str, *, worker: int = 0) -> None:
        self.settings = settings
        self.url = url
        self.worker = worker  # 0 is the first process; it also makes days and folds balances
        self.metrics = Metrics()
        self.readiness = Readiness()
        self.stopping = asyncio.Event()
        self.terminal_port = 0
        self.http_port = 0
        self.forwarders: dict[str, Forwarder] = {}
        self.tac_workers: TacWorkers | None = None
        self._drained_by_s = 0.0
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Service":
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        settings, metrics = self.settings, self.metrics
        vault = self._open_vault()
        pool = await self._pool(settings.database.pool_max)
        async with pool.connection() as connection:
            await require_shards(connection, settings.database.shards)
            if await adopt_cluster(connection):
                log.warning("the database has come from another cluster; transactions go on from its numbers")
            if self.worker == 0:
                await ensure_days(connection, settings.ledger.days_ahead, settings.clearing.cut_off)

        terminals = TerminalDirectory(pool.connection, vault, key_age_s=settings.terminals.key_age_s)
        cards = CardDirectory(pool.connection)
        self._stack.push_async_callback(terminals.close)
        self._stack.push_async_callback(cards.close)
        routes = Routes(pool.connection, own_ids=settings.institution.issuer_ids)
        self._stack.push_async_callback(routes.close)
        bindings = BindingDirectory(pool.connection)
        self._stack.push_async_callback(bindings.close)
        list_changes = ListChanges()
        registry = RegistryListener(self._connect, [terminals, cards, routes, bindings, list_changes])
        self._background(registry.run())
        await asyncio.wait_for(registry.listening.wait(), 10.0)
        await routes.start()
        metrics.watch("route_table", "Version of the routing table", lambda: routes.version)

        books = Books(
            settings.database.shards,
            self._connect_writer,
            DE39,
            queue_max=settings.ledger.queue_max,
            batch_max=settings.ledger.batch_max,
            no_pin_limit_fen=settings.ledger.no_pin_limit_fen,
            on_batch=metrics.batch,
            on_load=metrics.load_step,
        )
        books.start()
        self._stack.push_async_callback(books.stop)
        metrics.watch("queue_depth", "Requests waiting for a batch", lambda: books.depth)
        seen = LastSeen()
        self._background(keep_noting(pool.connection, seen, time.monotonic))
        self._background(keep_time(metrics.loop_late.add))
        desk = self._desk(vault, seen)
        await self._join_hosts(vault, books, pool)
        names = self.host_desk.names
        routes.join(has=self.host_desk.has, usable=self.host_desk.usable, hosts_of=names.of_institution)

        reception = Reception(
            vault=vault,
            terminals=terminals,
            cards=cards,
            routes=routes,
            books=books,
            desk=desk,
            hosts=self.host_desk,
            bindings=bindings,
            connect=pool.connection,
            watch=metrics,
            acquirer=settings.institution.acquirer_code,
            log_answers=settings.telemetry.log_transactions,
            seen=seen,
        )
        await reception.start()
        self._stack.push_async_callback(reception.close)
        if self.worker == 0:
            # Of its own: a fold or a run of rules may take minutes, and whoever signs on must not wait behind it.
            upkeep = await self._pool(UPKEEP_CONNECTIONS)
            self._keep_up(upkeep)
        await self._open_to_the_world(pool, registry, routes, reception)
        if settings.mqtt.host:
            batches = PurseBatches(terminals, desk, pool.connection, metrics)
            mqtt = self._listen_at_broker(reception, batches)
            if self.worker == 0:
                lists = ListPublication(ListSigner(vault), mqtt)
                self._background(
                    keep_publishing(upkeep.connection, lists, lambda: mqtt.lines, changes=list_changes)
                )

    def _keep_up(self, pool: AsyncConnectionPool[Any]) -> None:
        """What one process of an installation does beside serving: folds, sweeps, counts, days ahead."""
        settings, metrics, from_pool = self.settings, self.metrics, pool.connection
        shards = range(settings.database.shards)
        fold_every_s = settings.ledger.fold_every_s
        for work in (
            keep_folding(from_pool, shards, fold_every_s),
            keep_sweeping(from_pool, shards),
            self.host_desk.keep_ending(from_pool),
            keep_counting(from_pool, shards, metrics),
            keep_rolling(from_pool, metrics.rollouts),
            keep_sweeping_loads(
                from_pool,
                self._connect_writer,
                shards,
                lambda moves: tell_moves(moves, metrics.load_step),
                metrics.in_suspense,
            ),
            keep_folding_purses(from_pool, fold_every_s),
            keep_counting_gaps(from_pool, metrics),
            keep_counting_deliveries(from_pool, metrics),
            keep_folding_trips(from_pool, fold_every_s),
            keep_running(from_pool, settings.purse.risk_every_s, metrics),
            keep_lapsing(from_pool, metrics),
            self._keep_days(pool),
        ):
            self._background(work)
        self.readiness.notes["calendar"] = self._calendar
        if settings.clearing.auto_close:
            closer = DayCloser(from_pool, self._close_day, settings.clearing.close_at)
            metrics.watch_closing(closer.closing)
            self.readiness.notes["close"] = closer.closing.note
            self._background(closer.run())
        if settings.reconcile.partners:
            self._background(keep_expecting(from_pool, partner_dues(settings), self._expect_of_partners))

    async def _close_day(self, day: date, tell: Callable[[Progress], None]) -> None:
        await close_elsewhere(self.url, day, tell)

    def _calendar(self) -> str:
        return horizon(self.settings.clearing.calendar_file, datetime.now(SHANGHAI).date())[1]

    def _expect_of_partners(self, figures: Mapping[str, Figures]) -> None:
        """A file that is overdue is an alarm, and no reason for terminals to stay away."""
        self.metrics.reconciled(figures)
        self.readiness.notes["partners"] = lambda: told(figures)

    def _listen_at_broker(self, reception: Reception, batches: PurseBatches) -> MqttTerminals:
        """Serve terminals over MQTT. The broker may be away: nothing waits for it."""
        terms = mqtt_terms(self.settings, self.worker)
        mqtt = MqttTerminals(reception.receive, batches.receive, terms, self.metrics)
        self.metrics.watch("mqtt_connected", "Whether the line to the broker listens", lambda: mqtt.connected)
        self.metrics.watch("mqtt_in_flight", "Messages over MQTT not answered yet", lambda: mqtt.in_flight)
        self.readiness.notes["mqtt"] = lambda: mqtt.problem
        self._background(mqtt.run())

        async def drain() -> None:
            if left := await mqtt.drain(self._drain_left()):
                log.warning("stopped with messages over MQTT unanswered", count=left)

        self._stack.push_async_callback(drain)
        return mqtt

    async def _open_to_the_world(
        self, pool: AsyncConnectionPool[Any], registry: RegistryListener, routes: Routes, reception: Reception
    ) -> None:
        settings, metrics = self.settings, self.metrics

        async def database() -> str:
            try:
                async with asyncio.timeout(2.0), pool.connection() as connection:
                    cursor = await connection.execute(
                        "SELECT 1 FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at"
                        " AND sealed_at IS NULL"
                    )
                    return "" if await cursor.fetchone() else "no business day is open"
            except (TimeoutError, psycopg.Error, OSError) as error:
                return type(error).__name__

        async def changes() -> str:
            return "" if registry.listening.is_set() else "registry changes are not heard"

        async def table() -> str:
            return routes.problem

        self.readiness.checks = {"database": database, "registry": changes, "routes": table}
        port = settings.http.port + self.worker if settings.http.port else 0
        api_pool = await self._pool(API_CONNECTIONS, size_min=0)
        close_note = self.readiness.notes.get("close", lambda: "")
        api = api_app(api_pool.connection, settings.clearing_folder, close_note, metrics)
        app = health_app(self.readiness, metrics, api)
        runner, self.http_port = await _listening("http", start_http(app, settings.http.host, port))
        self._stack.push_async_callback(runner.cleanup)

        listener = TerminalListener(reception.receive, metrics, terminal_limits(settings))
        tls = None
        at = settings.terminals
        if at.tls_certificate is not None and at.tls_key is not None:
            authority = str(at.tls_client_authority or "")
            tls = server_tls(str(at.tls_certificate), str(at.tls_key), authority)
        shared = at.processes > 1
        self.terminal_port = await _listening(
            "terminals", listener.start(at.host, at.port, tls, shared=shared)
        )
        self._stack.push_async_callback(self._drain, listener)

    def _drain_left(self) -> float:
        """Seconds that are left for draining, all lines together: it begins when this is first asked."""
        self.readiness.draining = True
        now_s = time.monotonic()
        self._drained_by_s = self._drained_by_s or now_s + self.settings.terminals.drain_s
        return max(self._drained_by_s - now_s, 0.0)

    async def _drain(self, listener: TerminalListener) -> None:
        left = await listener.drain(self._drain_left())
        if left:
            log.warning("stopped with requests unanswered", count=left)

    def _desk(self, vault: Vault, seen: LastSeen) -> BatchDesk:
        settings = self.settings
        shards = settings.database.shards
        lanes = settings.purse.lanes
        check = inline_tacs(vault)
        if self.tac_workers is not None:
            self._stack.callback(self.tac_workers.shutdown)
            check = pooled_tacs(self.tac_workers, vault)
        intake = IntakeLanes(
            lambda: IntakeWriter(
                self._connect_writer,
                check,
                shards,
                queue_max=max(1, settings.purse.queue_max // lanes),
                records_max=settings.purse.batch_records_max,
            ),
            lanes,
        )
        batches = TerminalBatches(self._connect_writer, shards, queue_max=settings.purse.queue_max)
        for writer in (intake, batches):
            task = asyncio.get_running_loop().create_task(writer.run())
            self._stack.push_async_callback(_finish, writer, task)
        self.metrics.watch("intake_depth", "Offline records waiting", lambda: intake.depth)
        return BatchDesk(intake, batches, self.metrics.taken_in, seen)

    async def _join_hosts(self, vault: SoftwareVault, books: Books, pool: AsyncConnectionPool[Any]) -> None:
        """Connect to the hosts of the settings. They may be away: nothing waits for them."""

        def activate(pair: Generation, partner: str) -> list[KeyRecord]:
            try:
                with psycopg.connect(self.url) as connection:
                    return activate_proved(vault, DatabaseKeyStore(connection), pair, partner)
            except psycopg.OperationalError as error:
                raise DatabaseLost("the database was lost while keys were activated") from error

        async def put_in_force(pair: Generation, partner: str) -> None:
            # In a thread, because a ceremony is synchronous; the vault itself changes here, in the loop's thread.
            vault.replace_records(await asyncio.to_thread(activate, pair, partner))
            if self.tac_workers is not None:
                self.tac_workers.renew()

        late = LateAnswers(pool.connection, self.metrics, self.wake_forwarder)
        self._background(late.run())
        acquirer = self.settings.institution.acquirer_code
        hosts = [(link_terms(link, acquirer), link.mac_id) for link in self.settings.hosts.links]
        self.hosts = HostLinks(hosts, vault, self.metrics, late.put, put_in_force)
        shards = self.settings.database.shards
        terms = [host_terms(link, shards) for link in self.settings.hosts.links]
        self.host_desk = HostDesk(terms, self.hosts.links, books, vault, shards=shards)
        self._stack.push_async_callback(
            self.host_desk.close, ENDS_S
        )  # after the links, whose end ends all questions
        self.metrics.watch("host_questions", "Requests that wait for a host", lambda: self.host_desk.depth)
        await self.hosts.start()
        self._stack.push_async_callback(self.hosts.stop)
        self._forward(pool)

    def _forward(self, pool: AsyncConnectionPool[Any]) -> None:
        """Begin to tell hosts what the outbox holds for them."""
        shards = range(self.settings.database.shards)
        for at in self.settings.hosts.links:
            link = self.hosts.links.get(at.name)
            if link is None:  # it has no keys; what it must be told waits
                continue
            forwarder = Forwarder(link, pool.connection, shards, forward_terms(at), self.metrics)
            self.forwarders[at.name] = forwarder
            link.on_usable = self.wake_forwarder
            task = asyncio.get_running_loop().create_task(forwarder.run())
            self._stack.push_async_callback(_finish, forwarder, task)

    def wake_forwarder(self, host: str) -> None:
        """Something may have become due at a host. Cheap."""
        if host in self.forwarders:
            self.forwarders[host].wake()

    def _open_vault(self) -> SoftwareVault:
        with psycopg.connect(self.url) as connection:
            vault = open_vault(connection, self.settings.unlock)
            meta = DatabaseKeyStore(connection).load_meta()
        if self.settings.purse.tac_workers:
            self.tac_workers = TacWorkers(
                lambda: VaultSnapshot(meta, tac_records(vault.records())),
                unlock_secret(self.settings.unlock),
                self.settings.purse.tac_workers,
            )
        return vault

    async def _connect(self) -> AsyncConnection[Any]:
        return await connect(self.url)

    async def _connect_writer(self) -> AsyncConnection[Any]:
        return await connect_writer(self.url)

    async def _pool(self, size_max: int, size_min: int = 1) -> AsyncConnectionPool[Any]:
        pool = make_pool(self.url, size_max=size_max, size_min=size_min)
        await pool.open()
        self._stack.push_async_callback(pool.close)
        return pool

    async def _keep_days(self, pool: AsyncConnectionPool[Any]) -> None:
        """Make days and partitions ahead, for as long as the service lives."""
        while True:
            await asyncio.sleep(DAYS_EVERY_S)
            try:
                async with pool.connection() as connection:
                    await ensure_days(
                        connection, self.settings.ledger.days_ahead, self.settings.clearing.cut_off
                    )
            except (psycopg.Error, DependencyError) as error:
                log.warning("days ahead were not made; tried again later", error=str(type(error).__name__))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)

        async def end() -> None:
            await end_tasks(task)
            if not task.cancelled():
                task.result()  # it works for as long as the service, so whatever ended it before is a fault of ours

        self._stack.push_async_callback(end)

    async def until_stopped(self) -> None:
        """Return when the process is told to stop."""
        await self.stopping.wait()


async def _finish(writer: MessageWriter[Any] | IntakeLanes | Forwarder, task: asyncio.Task[None]) -> None:
    """Let a writer end what is queued, a forwarder what is on its way."""
    writer.stop()
    await task


async def _listening(what: str, start: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await start
    except OSError as error:
        raise ConfigurationError(f"{what}.port: cannot listen: {error.strerror or error}") from error


async def require_shards(connection: AsyncConnection[Any], shards: int) -> None:
    """ConfigurationError when card holders live in shards that this switch would not serve."""
    cursor = await connection.execute("SELECT max(shard) FROM card_route")
    row = await cursor.fetchone()
    if row is not None and row[0] is not None and row[0] >= shards:
        raise ConfigurationError(
            f"database.shards: cards are stored in shard {row[0]}, but only {shards} shards are set"
        )


async def run(
    settings: Settings,
    url: str,
    *,
    worker: int = 0,
    server: EmbeddedPostgres | None = None,
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP."""
    try:
        with psycopg.connect(url) as connection:
            require_current(connection)
    except psycopg.OperationalError as error:
        raise DatabaseLost("the database cannot be reached; start again when it can") from error
    async with Service(settings, url, worker=worker) as service:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the last when a terminal window goes
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup means that it stays
                loop.add_signal_handler(number, service.stopping.set)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again and again
        gc.set_threshold(10_000, 50, 100)  # there is nothing to find; should that change, pauses stay short
        async with contextlib.AsyncExitStack() as around:
            if server is not None:
                keeper = loop.create_task(server.keep_running())
                around.callback(keeper.cancel)
            if worker == 0:
                await around.enter_async_context(
                    further_processes(settings.terminals.processes, url, service.terminal_port)
                )
                wanted = settings.delivery.service and bool(settings.delivery.partners)
                await around.enter_async_context(deliverer(url, wanted=wanted))
                announce(
                    f"ready: terminals {settings.terminals.host}:{service.terminal_port}"
                    f" http {settings.http.host}:{service.http_port}"
                )
            await service.until_stopped()
            log.info("draining", worker=worker)


def serve(worker: int = 0, worker_port: int = 0) -> None:
    """Serve terminals until SIGTERM or SIGINT.

    worker: number of a further process that the first one started, which shares its port; its URL comes on stdin.
    """
    settings = load_settings()
    logs.configure(settings.telemetry.log_level)

    def announce(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    if worker:
        die_with_parent()
        url = sys.stdin.readline().strip()
        terminals = settings.terminals.model_copy(update={"port": worker_port})
        settings = settings.model_copy(update={"terminals": terminals})
        uvloop.run(run(settings, url, worker=worker, announce=announce))
    elif settings.database.url.get_secret_value():
        uvloop.run(run(settings, settings.database.url.get_secret_value(), announce=announce))
    else:
        server = EmbeddedPostgres(settings.data_dir, memory_mb=settings.database.embedded_memory_mb)
        url = server.start()
        try:
            uvloop.run(run(settings, url, server=server, announce=announce))
        finally:
            server.stop()
