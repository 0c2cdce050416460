"""`cardswitch bindings …`: which bank card pays for a citizen card. What a binding is: docs/registry.md; these commands: docs/operations.md.

The bank card's number is read from standard input, where no list of processes shows it, and is printed masked only.
"""

import asyncio
import getpass
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import psycopg
import typer

from switch.domain.errors import InputRefused
from switch.domain.identifiers import CardNumber, mask_pan
from switch.keys.sealing import SealError
from switch.keys.vault import Vault
from switch.ledger.card_desk import Place, find_card
from switch.ledger.card_states import FOLLOWING, shown, with_reason
from switch.operations.commands.registry import enter_day, vault_of
from switch.registry.binding_desk import Stored, bindings_of, end_binding
from switch.registry.bindings import seal_context
from switch.registry.import_files import Faults, ImportRefused, Row, Source, read_record
from switch.registry.import_format import BINDINGS
from switch.registry.importing import take_in
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Bound bank cards.")

Card = Annotated[
    str, typer.Argument(help="Card number, or card_no as reports name it; - reads it from standard input.")
]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Limit = Annotated[int | None, typer.Option(min=0, help="In fen.")]
BIND = Path("bind")  # no file: faults of `bind` are told without a place


def _line() -> str:
    return sys.stdin.readline().strip()


def _place(url: str, card: str) -> Place:
    async def find() -> Place:
        async with await connect(url) as connection:
            return await find_card(connection, card)

    return asyncio.run(find())


@app.command("list")
def list_(card: Card, as_json: Json = False) -> None:
    """Show a card's bindings, ended ones too, with masked numbers."""
    settings = load_settings()
    with open_database(settings) as url:
        place = _place(url, _line() if card == "-" else card)
        with psycopg.connect(url, autocommit=True) as connection:
            found = bindings_of(connection, place.shard, place.card_no)
        vault = vault_of(url, settings) if found else None
    shown_ones = [_document(one, _masked(vault, place, one)) for one in found]
    if as_json:
        document = {"card": mask_pan(place.pan), "card_no": place.card_no, "bindings": shown_ones}
        typer.echo(orjson.dumps(document).decode())
        return
    typer.echo(f"card {mask_pan(place.pan)}, card_no {place.card_no}: {len(found)} bindings")
    for one in shown_ones:
        typer.echo("  " + ", ".join(f"{name} {value}" for name, value in one.items() if value is not None))


def _masked(vault: Vault | None, place: Place, one: Stored) -> str:
    assert vault is not None
    try:
        context = seal_context(CardNumber(place.pan), one.institution_id, one.agreement_id)
        return str(vault.open_account(one.sealed, context))
    except SealError:
        return "does not open"


def _document(one: Stored, masked: str) -> dict[str, Any]:
    return {
        "binding": one.binding_no,
        "institution_id": one.institution_id,
        "agreement_id": one.agreement_id,
        "bank_card": masked,
        "is_default": one.is_default,
        "state": one.state,
        "transaction_limit_fen": one.transaction_limit_fen,
        "day_limit_fen": one.day_limit_fen,
        "confirmed_at": shown(one.confirmed_at),
        "bound_at": shown(one.bound_at),
        "bound_by": one.bound_by,
        "ended_at": shown(one.ended_at) if one.ended_at else None,
        "ended_by": one.ended_by,
    }


@app.command("bind")
def bind(
    card: Card,
    bank: Annotated[str, typer.Option(help="Its institution id.")],
    agreement: Annotated[str, typer.Option(help="The agreement's number at the bank.")],
    confirmed_at: Annotated[
        str,
        typer.Option(
            help="When the bank confirmed the holder's name and identity: 2026-03-15T10:30:00+08:00."
        ),
    ],
    reason: Reason,
    default: Annotated[bool, typer.Option(help="Whether terminals mean this one.")] = True,
    transaction_limit_fen: Limit = None,
    day_limit_fen: Limit = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Bind a bank card, whose number is read from standard input (after the card's, where that is -)."""
    settings = load_settings()
    why = with_reason(reason)
    chosen = _line() if card == "-" else card
    number = typer.prompt("bank card", hide_input=True) if sys.stdin.isatty() else _line()
    with open_database(settings) as url:
        place = _place(url, chosen)
        raw = {
            "institution_id": bank,
            "agreement_id": agreement,
            "pan": place.pan,
            "bank_card": number,
            "is_default": default,
            "holder_confirmed": True,
            "confirmed_at": confirmed_at,
            "transaction_limit_fen": transaction_limit_fen,
            "day_limit_fen": day_limit_fen,
        }
        with psycopg.connect(url, autocommit=True) as connection:
            _take_in(connection, url, settings, raw, actor or getpass.getuser(), why)
            made = next(
                one
                for one in bindings_of(connection, place.shard, place.card_no)
                if (one.institution_id, one.agreement_id) == (bank, agreement)
            )
    if as_json:
        document = {
            "card": mask_pan(place.pan),
            "card_no": place.card_no,
            **_document(made, mask_pan(number)),
        }
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(
            f"binding {made.binding_no}: {mask_pan(number)} of bank {bank} pays for card {mask_pan(place.pan)}"
        )


def _take_in(
    connection: psycopg.Connection[Any],
    url: str,
    settings: Settings,
    raw: dict[str, Any],
    actor: str,
    reason: str,
) -> None:
    """By the rules of an import, so that there is one set of them."""
    source = Source(BIND)

    def rows(faults: Faults) -> Iterator[Row]:
        record = read_record(BINDINGS, source, 0, raw, faults)
        if record is not None:
            yield Row(BINDINGS, 0, 0, record)

    def no_pins() -> Any:
        raise AssertionError("a binding has no PIN")

    try:
        report = take_in(
            connection,
            [source],
            rows,
            shards=settings.database.shards,
            actor=actor,
            enter_day=enter_day,
            pins=no_pins,
            numbers=lambda: vault_of(url, settings),
            following=FOLLOWING,
            reason=reason,
        )
    except ImportRefused as refusal:
        broken = "; ".join(f"{fault.field}: {fault.rule}" for fault in refusal.faults)
        raise InputRefused(f"not bound: {broken}") from None
    if report.ended:
        raise InputRefused("not bound: the agreement has ended; bind by a new one")


@app.command("unbind")
def unbind(
    binding: Annotated[int, typer.Argument(help="Its number, as `list` shows it.")],
    reason: Reason,
    evidence: Annotated[str, typer.Option(help="The bank's confirmation that it has ended.")],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """End a binding, at once and for good. Payments that are with the bank already stand."""
    with (
        open_database(load_settings()) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        ended_at = end_binding(
            connection,
            binding,
            actor=actor or getpass.getuser(),
            reason=with_reason(reason),
            evidence=with_reason(evidence),
        )
    if as_json:
        typer.echo(orjson.dumps({"binding": binding, "state": "ENDED", "ended_at": shown(ended_at)}).decode())
    else:
        typer.echo(f"binding {binding}: ended {shown(ended_at)}")
