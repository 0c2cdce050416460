"""`cardswitch card …`: loss reports and the other changes of a card's state. Which moves there are: docs/operations.md, section 17."""

import asyncio
import getpass
import sys
from typing import Annotated

import orjson
import typer

from switch.domain.identifiers import mask_pan
from switch.ledger.card_desk import Changed, Place, change_card, find_card, state_of
from switch.ledger.card_states import Move, State, receipt, shown
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Loss reports, and the life of a card.")

Card = Annotated[
    str, typer.Argument(help="Card number, or card_no as reports name it; - reads it from standard input.")
]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Evidence = Annotated[str, typer.Option(help="Which documents were seen.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def _number(card: str) -> str:
    """A number given as `-` stays out of the list of processes."""
    return sys.stdin.readline().strip() if card == "-" else card


def _make(move: Move, card: str, reason: str, evidence: str, actor: str, as_json: bool) -> None:
    async def make(url: str) -> Changed:
        async with await connect(url) as connection:
            place = await find_card(connection, number)
            return await change_card(
                connection, place, move, actor=actor or getpass.getuser(), reason=reason, evidence=evidence
            )

    number = _number(card)
    with open_database(load_settings()) as url:
        changed = asyncio.run(make(url))
    if as_json:
        document = {
            "card": mask_pan(changed.place.pan),
            "card_no": changed.place.card_no,
            "move": move.value,
            "before": changed.before.status.name,
            **_document(changed.after),
        }
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(receipt(mask_pan(changed.place.pan), changed.before, changed.after))


def _document(state: State) -> dict[str, str | None]:
    return {
        "state": state.status.name,
        "lost_at": shown(state.lost_at) if state.lost_at else None,
        "loss_lapses_at": shown(state.lapses_at) if state.lapses_at else None,
    }


@app.command("lose")
def lose(
    card: Card,
    reason: Reason = "reported by telephone",
    formal: Annotated[
        bool, typer.Option("--formal", help="A written report: it does not lapse. Confirms a temporary one.")
    ] = False,
    evidence: Evidence = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """掛失: refuse payments from now on, to the millisecond. A telephone report lapses after five days."""
    _make(Move.CONFIRM if formal else Move.LOSE, card, reason, evidence, actor, as_json)


@app.command("lift")
def lift(
    card: Card, reason: Reason, evidence: Evidence = "", actor: Actor = "", as_json: Json = False
) -> None:
    """解掛: lift a report. A formal one takes --evidence: the holder with identity document and card."""
    _make(Move.LIFT, card, reason, evidence, actor, as_json)


def _command(move: Move, text: str) -> None:
    def run(
        card: Card, reason: Reason, evidence: Evidence = "", actor: Actor = "", as_json: Json = False
    ) -> None:
        _make(move, card, reason, evidence, actor, as_json)

    app.command(move.value, help=text)(run)


for _move, _text in (
    (Move.ACTIVATE, "Hand over: READY to ACTIVE."),
    (Move.DAMAGE, "ACTIVE to DAMAGED."),
    (Move.EXPIRE, "ACTIVE to EXPIRED."),
    (Move.REPLACE, "A lost, damaged or expired card has got its successor; final."),
    (Move.CANCEL, "Begin a cancellation 註銷: refused from now on."),
    (Move.CLOSE, "End a cancellation; final."),
):
    _command(_move, _text)


@app.command("show")
def show(card: Card, as_json: Json = False) -> None:
    """State, loss report and its instants."""

    async def read(url: str) -> tuple[Place, State, bool]:
        async with await connect(url) as connection:
            place = await find_card(connection, number)
            state, now = await state_of(connection, place)
            return place, state, state.lapsed(now)

    number = _number(card)
    with open_database(load_settings()) as url:
        place, state, lapsed = asyncio.run(read(url))
    document = {
        "card": mask_pan(place.pan),
        "card_no": place.card_no,
        **_document(state),
        "report_lapsed": lapsed,
    }
    if as_json:
        typer.echo(orjson.dumps(document).decode())
    else:
        for name, value in document.items():
            typer.echo(f"{name:15} {value if value is not None else ''}")
