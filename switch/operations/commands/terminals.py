"""`cardswitch terminals status`: what each terminal has fetched and reported, and how that differs from what it should have."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import psycopg
import typer

from switch.domain.errors import InputRefused
from switch.registry.terminal_status import TerminalStatus, read_status
from switch.settings import load_settings
from switch.storage.embedded import open_database

app = typer.Typer(no_args_is_help=True, help="Terminals at work.")


@app.callback()
def terminals() -> None:
    """Keep `status` a word of its own."""


@app.command()
def status(
    terminal: Annotated[list[str] | None, typer.Argument(help="Terminal ids; without one: all.")] = None,
    behind: Annotated[
        bool, typer.Option("--behind", help="Only those that differ from what they should have.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What terminals have last fetched and reported. Exit 1 for a terminal that is not registered."""
    with open_database(load_settings()) as url, psycopg.connect(url) as connection:
        now, rows = read_status(connection, terminal or ())
        found = [row for row in rows if row.differences or not behind]
        unknown = set(terminal or ()) - {row.terminal_id for row in rows}
    if unknown:
        raise InputRefused(f"not registered: {', '.join(sorted(unknown))}")
    if as_json:
        typer.echo(json.dumps({"now": now.isoformat(), "terminals": [_document(row, now) for row in found]}))
        return
    for line in _lines(found, now):
        typer.echo(line)


def _document(row: TerminalStatus, now: datetime) -> dict[str, Any]:
    instants = {
        name: at.isoformat() if at is not None else None
        for name, at in (
            ("signed_on_at", row.signed_on_at),
            ("seen_at", row.seen_at),
            ("reported_at", row.reported_at),
        )
    }
    age_s = int((now - row.reported_at).total_seconds()) if row.reported_at is not None else None
    differences = [difference._asdict() for difference in row.differences]
    return row._asdict() | instants | {"report_age_s": age_s, "differences": differences}


def _lines(rows: list[TerminalStatus], now: datetime) -> Iterator[str]:
    yield f"{'terminal':10}{'merchant':17}{'seen':>8}{'report':>8}{'hot list':>10}{'unsent':>8}  differs in"
    for row in rows:
        differs = ", ".join(
            f"{name} {reported or 'unknown'} (should be {wanted})"
            for name, reported, wanted in row.differences
        )
        hot_list = "-" if row.hot_list_version is None else str(row.hot_list_version)
        unsent = "-" if row.unsent_records is None else str(row.unsent_records)
        yield (
            f"{row.terminal_id:10}{row.merchant_id:17}{_age(row.seen_at, now):>8}{_age(row.reported_at, now):>8}"
            f"{hot_list:>10}{unsent:>8}  {differs or '-'}"
        )


def _age(at: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    if at is None:
        return "never"
    age = max(now - at, timedelta())
    if age.days:
        return f"{age.days} d"
    return f"{age.seconds // 3600} h" if age.seconds >= 3600 else f"{age.seconds // 60} min"
