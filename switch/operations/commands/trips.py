"""`cardswitch trips day|card`: rides in transit, as their records tell."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from switch.domain.errors import InputRefused
from switch.domain.identifiers import CardNumber
from switch.domain.money import yuan
from switch.ledger.days import open_day
from switch.purse.trips import SQL, TRIPS_SHOWN_MAX
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(
    no_args_is_help=True, help="Rides in transit: what a day paid for, and the trips of a card."
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
_DAY = (
    *("merchant", "name", "merchant_no", "ride_date", "industry", "line"),
    *("single", "complete", "incomplete", "entries", "open", "transfers"),
    *("paid_fen", "maximum_fen", "full_fen", "transfer_discount_fen", "other_discount_fen"),
)
_CARD = (
    *("entry_atc", "end_atc", "state", "entered_at", "left_at", "entry_station", "end_station"),
    *(
        "industry",
        "line",
        "merchant_no",
        "amount_fen",
        "full_fare_fen",
        "transfer",
        "upstream",
        "business_date",
    ),
)


@app.command()
def day(
    date: Annotated[
        datetime | None,
        typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Business date; default: the open one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What a business day paid for rides, by merchant, the ride's own date, industry and line."""

    async def read(url: str) -> tuple[Any, list[dict[str, Any]]]:
        async with await connect(url) as connection:
            row = None if date else await open_day(connection)
            wanted = date.date() if date else row.day if row else None
            if wanted is None:
                raise InputRefused("no business day is open")
            cursor = await connection.execute(SQL["transit_of_day"].encode(), {"day": wanted})
            return wanted, [dict(zip(_DAY, found, strict=True)) for found in await cursor.fetchall()]

    with open_database(load_settings()) as url:
        wanted, lines = asyncio.run(read(url))
    if as_json:
        document = {"day": wanted, "lines": lines}
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(title=f"Rides of {wanted}", title_justify="left")
    for title in ("merchant", "ride date", "industry", "line"):
        table.add_column(title, no_wrap=True)
    titles = (
        "single",
        "complete",
        "incomplete",
        "open",
        "transfers",
        "paid",
        "of it maximum fares",
        "full fares",
        "discounts",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for line in lines:
        discounts_fen = line["transfer_discount_fen"] + line["other_discount_fen"]
        table.add_row(
            line["merchant"],
            str(line["ride_date"]),
            f"{line['industry']:02X}",
            line["line"],
            *(f"{line[name]:,}" for name in ("single", "complete", "incomplete", "open", "transfers")),
            *(yuan(fen) for fen in (line["paid_fen"], line["maximum_fen"], line["full_fen"], discounts_fen)),
        )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 160)
    console.print(table)


@app.command()
def card(
    pan: Annotated[str, typer.Argument(help="Card number.")],
    limit: Annotated[int, typer.Option(min=1, max=TRIPS_SHOWN_MAX, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Trips of a card through gates, the newest first."""
    try:
        number = CardNumber(pan)
    except ValueError as error:
        raise InputRefused(str(error)) from error

    async def read(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            values = {"pan": number.reveal(), "limit": limit}
            cursor = await connection.execute(SQL["trips_of_card"].encode(), values)
            return [dict(zip(_CARD, found, strict=True)) for found in await cursor.fetchall()]

    with open_database(load_settings()) as url:
        trips = asyncio.run(read(url))
    if as_json:
        typer.echo(orjson.dumps({"card": str(number), "trips": trips}, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(f"{number}: {len(trips)} trips")
    for trip in trips:
        entered = (
            f"{trip['entered_at']:%Y-%m-%d %H:%M} at {trip['entry_station']}"
            if trip["entered_at"]
            else "no entry"
        )
        left = (
            f"{trip['left_at']:%Y-%m-%d %H:%M} at {trip['end_station']}" if trip["left_at"] else "not out yet"
        )
        transfer = ", transfer" if trip["transfer"] else ""
        typer.echo(
            f"{trip['state']:10}  {entered:26}  {left:26}  line {trip['line']}  {yuan(trip['amount_fen']):>10}{transfer}"
        )
