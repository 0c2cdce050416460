"""`cardswitch mqtt`: the access list and the password file of a mosquitto broker, out of the registry."""

import csv
import os
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from switch.domain.errors import InputRefused
from switch.operations.mqtt_access import access_list, new_password, password_line
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.transports.mqtt_topics import encoded

app = typer.Typer(no_args_is_help=True, help="Terminals over MQTT: what the broker needs.")
FILE_BYTES_MAX = 64 * 1024 * 1024
_ACTIVE = "SELECT terminal_id FROM terminal WHERE state = 'ACTIVE' ORDER BY terminal_id"


@app.command()
def acl(
    switch_user: Annotated[
        str,
        typer.Option(
            "--switch-user", help="The switch at the broker; default: mqtt.username, else `switch`."
        ),
    ] = "",
) -> None:
    """Print an acl_file for mosquitto: each terminal under its own topics, the switch under all."""
    try:
        typer.echo(access_list(switch_user or load_settings().mqtt.username or "switch"), nl=False)
    except ValueError as error:
        raise InputRefused(f"--switch-user: {error}") from None


@app.command()
def passwords(
    file: Annotated[
        Path, typer.Argument(help="The password_file; what is in it already is kept.", dir_okay=False)
    ],
    secrets: Annotated[
        Path,
        typer.Argument(help="CSV of new passwords in clear, to be taken to the terminals.", dir_okay=False),
    ],
) -> None:
    """A password for every active terminal that has none yet; those of closed ones are taken away. Other users stay as they are."""
    with open_database(load_settings()) as url, psycopg.connect(url) as connection:
        active = {encoded(terminal_id): terminal_id for (terminal_id,) in connection.execute(_ACTIVE)}
        every = {encoded(name) for (name,) in connection.execute("SELECT terminal_id FROM terminal")}
    known = _read(file)
    kept = {user: line for user, line in known.items() if user in active or user not in every}
    fresh = {user: new_password() for user in active if user not in kept}
    if secrets.exists():
        raise InputRefused(f"{secrets} is there already: take it away first")
    # The clear ones first: a password that nobody knows any more would be worse than one that nobody uses yet.
    _write(secrets, [["terminal_id", "username", "password"], *([active[u], u, p] for u, p in fresh.items())])
    lines = [*kept.values(), *(password_line(user, password) for user, password in fresh.items())]
    beside = file.with_name(file.name + ".tmp")
    with os.fdopen(
        os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as stream:
        stream.write("".join(line + "\n" for line in lines))
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)
    typer.echo(f"{len(fresh)} new, {len(kept)} kept, {len(known) - len(kept)} taken away")


def _read(file: Path) -> dict[str, str]:
    """Lines of a password file by user."""
    try:
        if file.exists() and file.stat().st_size > FILE_BYTES_MAX:
            raise InputRefused(f"{file}: larger than {FILE_BYTES_MAX} bytes")
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError):
        raise InputRefused(f"{file}: not readable") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if any(":" not in line for line in lines):
        raise InputRefused(f"{file}: not a password file")
    return {line.partition(":")[0]: line for line in lines}


def _write(file: Path, rows: list[list[str]]) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
        stream.flush()
        os.fsync(stream.fileno())
