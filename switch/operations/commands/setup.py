"""`cardswitch init` and `migrate`: from nothing to a database that can be served."""

import asyncio
import json
import os
import secrets
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from switch.domain.errors import ConfigurationError, InputRefused
from switch.keys.opening import create_vault, open_vault, unlock_secret
from switch.keys.stores import DatabaseKeyStore
from switch.ledger.days import adopt_cluster, ensure_days
from switch.operations.settings_file import write_settings_file
from switch.settings import DEFAULT_FILE, Settings, chosen_file, load_settings
from switch.storage.embedded import open_database
from switch.storage.migrate import migrate as run_migrations
from switch.storage.pool import connect

PASSPHRASE_BYTES = 32


def _make_passphrase(file: Path) -> bool:
    """Write a random passphrase, mode 600, unless the file is there."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_urlsafe(PASSPHRASE_BYTES) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return True


def _make_vault(url: str, settings: Settings, *, rehearsal: bool) -> list[str]:
    """A vault and, where no secret is set, a passphrase for it; what was done, in words. A lost passphrase is not replaced by another."""
    done = []
    with psycopg.connect(url) as connection:
        store = DatabaseKeyStore(connection)
        if store.load_meta():
            open_vault(connection, settings.unlock)  # that it opens is part of what init promises
            return []
        file = settings.default_passphrase_file
        if settings.unlock.passphrase_file == file and _make_passphrase(file):
            done.append(f"passphrase written to {file}; keep a copy in a safe place")
        create_vault(store, unlock_secret(settings.unlock), rehearsal=rehearsal)
    return [*done, "vault made" + (", marked for rehearsal" if rehearsal else "")]


async def _adopt_cluster(url: str) -> bool:
    async with await connect(url) as connection:
        return await adopt_cluster(connection)


async def _make_days(url: str, settings: Settings) -> None:
    async with await connect(url) as connection:
        await ensure_days(connection, settings.ledger.days_ahead, settings.clearing.cut_off)


def initialise(settings: Settings, url: str, *, rehearsal: bool) -> list[str]:
    """Schema, vault, days. Idempotent; returns what was done, in words."""
    done = [f"migration {name} applied" for name in run_migrations(url)]
    done += _make_vault(url, settings, rehearsal=rehearsal)
    asyncio.run(_make_days(url, settings))
    return done


def _make_settings_file() -> list[str]:
    if chosen_file() is not None:
        return []
    try:
        written = write_settings_file(DEFAULT_FILE)
    except OSError as error:  # a folder that is not ours: nothing needs the file
        return [f"settings file {DEFAULT_FILE} not written: {error.strerror}"]
    return [f"settings file {DEFAULT_FILE} written: every setting, commented out"] if written else []


def init(
    production: Annotated[
        bool,
        typer.Option(
            "--production", help="Make a vault that may serve production; needs a secret in the settings."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Make settings file, data directory, database, schema, vault and business days. Again: completes what is missing."""
    settings = load_settings()
    if production and settings.unlock.passphrase_file == settings.default_passphrase_file:
        raise InputRefused(
            "vault: a production vault needs vault.passphrase_file or vault.key_file, kept apart from its data"
        )
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a folder"
        raise ConfigurationError(f"data_dir {settings.data_dir}: {reason}") from error
    with open_database(settings) as url:
        done = initialise(settings, url, rehearsal=not production)
    done += _make_settings_file()
    if as_json:
        typer.echo(json.dumps({"done": done}, ensure_ascii=False))
    else:
        for line in done or ["everything was there already"]:
            typer.echo(line)


def migrate(as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """Bring the schema up to this version, and the books into the cluster they are in now; says what was done."""
    settings = load_settings()
    with open_database(settings) as url:
        applied = run_migrations(url)
        moved = asyncio.run(_adopt_cluster(url))
    if as_json:
        typer.echo(json.dumps({"applied": applied, "moved": moved}))
    else:
        for line in [f"migration {name} applied" for name in applied] or ["the schema is current"]:
            typer.echo(line)
        if moved:
            typer.echo("the database has come from another cluster; transactions go on from its numbers")
