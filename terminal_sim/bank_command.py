"""`cardswitch sim bank`: the custody bank from files, for whoever tries a settlement out."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from switch.domain.calendar import SHANGHAI
from terminal_sim.custody_bank import CustodyBank, Fate, OrderRefused


def _fates(words: list[str]) -> dict[str, Fate]:
    found = {}
    for word in words:
        number, _, name = word.partition("=")
        if name not in {fate.value for fate in Fate}:
            raise typer.BadParameter(f"PAYOUT= one of {', '.join(fate.value for fate in Fate)}")
        found[number] = Fate(name)
    return found


def bank(
    order: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A payment order, O….xml.")],
    account: Annotated[str, typer.Option(help="The account that it must be on.")],
    out: Annotated[Path, typer.Option(help="Folder for the bank's papers.")],
    opening_fen: Annotated[int, typer.Option(help="Balance before the order.")] = 0,
    fate: Annotated[
        list[str] | None,
        typer.Option(help="PAYOUT=paid, returned, less, more, twice or silent; default: paid."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Carry a payment order out and write what happened as camt.054 (early) and camt.053 (the day's end). Exit 1: order refused."""
    made = CustodyBank(account, opening_fen, name=order.stem)
    now = datetime.now(SHANGHAI)
    try:
        payments = made.order(order.read_bytes(), _fates(fate or []))
    except OrderRefused as refusal:
        typer.echo(f"order refused: {refusal}", err=True)
        raise typer.Exit(1) from None
    out.mkdir(parents=True, exist_ok=True)
    names = [f"camt054-{order.stem}.xml", f"camt053-{order.stem}.xml"]
    for name, paper in zip(names, (made.notification(now), made.statement(now)), strict=True):
        out.joinpath(name).write_bytes(paper)
    if as_json:
        document = {"payments": len(payments), "closing_fen": made.balance_fen, "written": names}
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(f"{len(payments)} payments carried out; in {out}: {', '.join(names)}")
