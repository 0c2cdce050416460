"""`cardswitch fleet`: every terminal, when it was last heard, what it holds and owes, and which bus has not come home."""

import json
from collections.abc import Iterator
from datetime import datetime, time
from typing import Annotated, Any

import psycopg
import typer

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.registry.fleet import EVENING, FILTERS, ORDERS, Member, chosen, read_fleet
from switch.settings import load_settings
from switch.storage.embedded import open_database


def fleet(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help=f"Those that are {', '.join(FILTERS)}; again: all of them must hold."),
    ] = None,
    merchant: Annotated[str, typer.Option("--merchant", help="Of one merchant, field 42.")] = "",
    order: Annotated[str, typer.Option("--order", help=f"{', '.join(ORDERS)}: the worst first.")] = "id",
    evening: Annotated[
        str, typer.Option("--evening", help="Buses upload after this time of day, Asia/Shanghai.")
    ] = f"{EVENING:%H:%M}",
    most: Annotated[int, typer.Option("--most", min=1, help="How many terminals to show.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Terminals at work: last seen, list versions and how far behind, unsent records, clocks, gaps, and buses that are away."""
    try:
        after = time.fromisoformat(evening)
    except ValueError:
        raise InputRefused("evening: a time of day such as 20:00 is wanted") from None
    settings = load_settings()
    with open_database(settings) as url, psycopg.connect(url) as connection:
        found = read_fleet(connection, settings.database.shards, after)
    members = chosen(found, only or (), merchant, order)
    if as_json:
        document = {
            "now": found.now.isoformat(),
            "evening": found.evening.isoformat(),
            "terminals": len(found.members),
            "shown": [_document(member) for member in members[:most]],
        }
        typer.echo(json.dumps(document))
        return
    for line in _lines(members[:most], found.now):
        typer.echo(line)
    away = sum(member.away for member in found.members)
    since = found.evening.astimezone(SHANGHAI)
    typer.echo(
        f"{len(members)} of {len(found.members)} terminals; {away} buses not home since {since:%Y-%m-%d %H:%M}"
    )


def _document(member: Member) -> dict[str, Any]:
    instants = {
        name: at.isoformat() if at is not None else None
        for name, at in (
            ("seen_at", member.seen_at),
            ("uploaded_at", member.uploaded_at),
            ("reported_at", member.reported_at),
        )
    }
    return member._asdict() | instants


def _lines(members: list[Member], now: datetime) -> Iterator[str]:
    yield (
        f"{'terminal':10}{'merchant':17}{'seen':>8}{'upload':>8}{'hot list':>10}{'behind':>8}{'city':>7}{'param':>7}{'unsent':>8}"
        f"{'clock':>9}{'gaps':>7}{'psam':>7}  "
    )
    for one in members:
        yield (
            f"{one.terminal_id:10}{one.merchant_id:17}{_ago(one.seen_at, now):>8}{_ago(one.uploaded_at, now):>8}"
            f"{_said(one.hot_held):>10}{one.hot_behind or '-':>8}{_said(one.city_held):>7}"
            f"{'ok' if one.parameters_current else 'old':>7}{_said(one.unsent):>8}"
            f"{'-' if one.skew_s is None else f'{one.skew_s:+d} s':>9}{one.missing_records or '-':>7}{one.missing_psam or '-':>7}"
            f"{'  AWAY' if one.away else ''}"
        )


def _said(value: int | None) -> str:
    return "-" if value is None else str(value)


def _ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    if at is None:
        return "never"
    seconds = max((now - at).total_seconds(), 0.0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
