"""`cardswitch doctor`: what is wrong, and what cures it. Looks, changes nothing."""

import importlib.metadata
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, NamedTuple

import psycopg
import typer

from switch.clearing.calendar_cn import horizon
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import SwitchError
from switch.keys.opening import open_vault
from switch.ledger.days import PARTITIONED
from switch.operations.commands.routes import examine as examine_routes
from switch.settings import Settings, load_settings
from switch.storage.embedded import holder, open_database
from switch.storage.migrate import pending
from switch.storage.pool import in_words

FREE_BYTES_MIN = 2 * 1024**3
SKEW_S_MAX = 2.0
POSTGRES_MIN = 150_000


class Finding(NamedTuple):
    """state: ok, warn or fail; cure: what to do about it."""

    state: str
    subject: str
    text: str
    cure: str = ""


def _host(settings: Settings) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        "ok" if sys.version_info >= (3, 11) else "fail", "python", python, "use Python 3.11 or newer"
    )
    for name in ("psycopg", "cryptography", "uvloop"):
        yield Finding("ok", name, importlib.metadata.version(name))
    folder = settings.data_dir
    if not folder.is_dir():
        yield Finding("fail", "data directory", f"{folder} is not there", "run `cardswitch init`")
        return
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield Finding(
        "ok" if writable else "fail", "data directory", str(folder), "make it writable for this user"
    )
    free = shutil.disk_usage(folder).free
    enough = free >= FREE_BYTES_MIN
    yield Finding(
        "ok" if enough else "warn",
        "disk",
        f"{free // 1024**2} MB free",
        "make room: a full disk stops booking",
    )
    held_by = holder(folder)
    yield Finding("ok", "holder", held_by or "nobody serves this data directory")
    if not held_by:
        for name, host, port in (
            ("terminals.port", settings.terminals.host, settings.terminals.port),
            ("http.port", settings.http.host, settings.http.port),
        ):
            yield _port(name, host, port)


def _calendar(settings: Settings) -> Iterator[Finding]:
    until, fault = horizon(settings.clearing.calendar_file, datetime.now(SHANGHAI).date())
    yield Finding(
        "warn" if fault else "ok",
        "calendar",
        fault or f"holidays are known until {until}",
        "the last close before that stops otherwise",
    )


def _port(name: str, host: str, port: int) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                "fail",
                name,
                f"{host}:{port} cannot be had: {error.strerror}",
                "choose another or end who has it",
            )
    return Finding("ok", name, f"{host}:{port} is free")


def _database(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[Finding]:
    version = connection.info.server_version
    yield Finding(
        "ok" if version >= POSTGRES_MIN else "fail", "PostgreSQL", str(version // 10000), "use 15 or newer"
    )
    for name, wanted in (("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")):
        value = _one(connection, f"SHOW {name}")
        yield Finding(
            "ok" if value == wanted else "fail",
            name,
            str(value),
            f"set {name} = {wanted}, or commits can be lost",
        )
    now = _one(connection, "SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    skew = abs((datetime.now(UTC) - now).total_seconds())
    state = "ok" if skew <= SKEW_S_MAX else "warn"
    yield Finding(
        state,
        "clock",
        f"{skew:.2f} s apart from the database's",
        "synchronise the clocks; the database's decides",
    )


def _schema(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[Finding]:
    missing = pending(connection)
    yield Finding(
        "fail" if missing else "ok", "schema", ", ".join(missing) or "current", "run `cardswitch migrate`"
    )
    if missing:
        return
    day = _one(
        connection,
        "SELECT business_date FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at",
    )
    if not isinstance(day, date):
        yield Finding("fail", "business day", "none is open", "run `cardswitch init`")
        return
    yield Finding("ok", "business day", f"{day} is open")
    for ahead in range(3):
        wanted = day + timedelta(days=ahead)
        gone = [
            table
            for table in PARTITIONED
            if _one(connection, "SELECT to_regclass(%s)::text", f"{table}_{wanted:%Y%m%d}") is None
        ]
        state = "fail" if gone else "ok"
        yield Finding(
            state,
            f"partitions of {wanted}",
            ", ".join(gone) or "there",
            "run `cardswitch init` or let serve run",
        )


def _routes(connection: psycopg.Connection[tuple[object, ...]], settings: Settings) -> Iterator[Finding]:
    """The registry can change under a table: digits given to another issuer, a city that is none any more."""
    if pending(connection):
        return
    version, faults = examine_routes(connection, frozenset(settings.institution.issuer_ids))
    text = f"{faults[0]}" + (f" and {len(faults) - 1} more" if len(faults) > 1 else "") if faults else ""
    yield Finding(
        "warn" if faults else "ok",
        "routing table",
        text or (f"version {version} is in force" if version else "none, only what is built in"),
        "see `cardswitch routes check`, import a better one",
    )


def _vault(connection: psycopg.Connection[tuple[object, ...]], settings: Settings) -> Iterator[Finding]:
    try:
        vault = open_vault(connection, settings.unlock)
    except SwitchError as error:
        yield Finding("fail", "vault", str(error), "check the vault section of the settings")
        return
    yield Finding("ok", "vault", "opens" + (", marked for rehearsal" if vault.rehearsal else ""))
    damaged = vault.damaged()
    yield Finding(
        "fail" if damaged else "ok",
        "keys",
        ", ".join(damaged) or f"{len(vault.records())} records",
        "restore them",
    )


def _one(connection: psycopg.Connection[tuple[object, ...]], query: str, *values: object) -> object:
    row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which cures make sense."""
    yield from _host(settings)
    yield from _calendar(settings)
    try:
        with open_database(settings) as url, psycopg.connect(url, autocommit=True) as connection:
            yield Finding("ok", "database", "reachable")
            parts: list[Callable[[], Iterator[Finding]]] = [
                lambda: _database(connection),
                lambda: _schema(connection),
                lambda: _vault(connection, settings),
                lambda: _routes(connection, settings),
            ]
            for part in parts:
                yield from part()
    except (SwitchError, psycopg.Error, OSError) as error:
        yield Finding(
            "fail",
            "database",
            in_words(error) if isinstance(error, psycopg.Error) else f"{type(error).__name__}: {error}",
            "run `cardswitch init`, or see database.url",
        )


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """Say what is wrong and what cures it. Exit 1 when something would stop the service."""
    findings = list(examine(load_settings()))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False, indent=1))
    else:
        for finding in findings:
            cure = f"  -> {finding.cure}" if finding.state != "ok" and finding.cure else ""
            typer.echo(f"{finding.state:4} {finding.subject}: {finding.text}{cure}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)
