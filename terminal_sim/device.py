"""`cardswitch sim pos`: one POS terminal for engineers, against any host, showing every frame masked.

Keys and PINs come from a city's description, a file or a hidden prompt, never from the command line, where everybody who lists
processes could read them.
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.domain.identifiers import CardNumber
from switch.domain.transactions import AccountKind
from switch.messages.describe import Piece, describe
from switch.messages.terminal_1987 import MTI_NAMES
from terminal_sim.crypto import MAC_ALGORITHM, check_value, diversify
from terminal_sim.frames import CardData, Terminal
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Answer, Request, UnusableAnswerError
from terminal_sim.pos_batch import NotNowError, Receipt
from terminal_sim.pos_client import Line, NoAnswerError, PosClient, RefusedError

STEPS_MAX = 100
KEY_FILE_BYTES_MAX = 4_096
TENTHS_OF_A_DAY = 864_000  # a trace number from the time of day stays below 999999
ACCOUNTS = {"online": AccountKind.ONLINE, "medical": AccountKind.MEDICAL}
STEP = re.compile(
    r"(sign-on|echo|balance|void|reversal|repeat|settle|sign-off|(?:purchase|refund):\d{1,8}(?:\.\d\d)?)"
)


class Device(NamedTuple):
    """What one device is given. pin: of the card, None without."""

    terminal: Terminal
    line: Line
    card: CardData | None
    pin: str | None

    def __repr__(self) -> str:
        return f"Device({self.terminal!r})"


class ShownClient(PosClient):
    """A POS that shows what it sends and gets."""

    __slots__ = ("_show",)

    def __init__(self, pos: Pos, line: Line, show: Callable[[str, Piece], None], *, timeout_s: float) -> None:
        super().__init__(pos, line, timeout_s=timeout_s, tries=1)
        self._show = show

    async def exchange(self, request: Request) -> Answer:
        """Send once, wait once, and show both."""
        link = await self.connect()
        frame = self.pos.pack(request)
        self._show("sent", Piece(frame, with_len=True))
        body = await link.ask(request.key, frame, self._timeout_s)
        self._show("received", Piece(body, with_len=False))
        return self.pos.take(request, body)


def pos(
    steps: Annotated[
        list[str],
        typer.Argument(
            help="In order: sign-on, echo, purchase:12.34, balance, void, refund:1.00, reversal, repeat, settle, sign-off."
            " Void, refund, reversal and repeat mean the last purchase."
        ),
    ],
    city: Annotated[
        Path | None,
        typer.Option("--city", help="city.json of a held city: host, keys and a guest card.", dir_okay=False),
    ] = None,
    host: Annotated[str, typer.Option("--host")] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 0,
    terminal: Annotated[str, typer.Option("--terminal", help="Field 41; with --city: a guest's.")] = "",
    merchant: Annotated[str, typer.Option("--merchant", help="Field 42.")] = "",
    mac: Annotated[int, typer.Option("--mac", min=1, max=5, help="MAC algorithm, 1 to 5.")] = 1,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", help="Its TMK, 32 hex digits. Asked for, hidden, when left out.", dir_okay=False
        ),
    ] = None,
    tmmk: Annotated[bool, typer.Option("--tmmk", help="The key is the TMMK; the TMK is derived.")] = False,
    pan: Annotated[str, typer.Option("--pan", help="Of a test card; asked for when it is needed.")] = "",
    expiry: Annotated[str, typer.Option("--expiry", help="YYMM, field 14.")] = "",
    ask_pin: Annotated[bool, typer.Option("--ask-pin", help="Ask for the PIN, hidden.")] = False,
    account: Annotated[str, typer.Option("--account", help="online or medical.")] = "online",
    trace: Annotated[
        int | None,
        typer.Option("--trace", min=1, max=999_999, help="First trace number; default: by the time of day."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, max=600.0, help="Seconds.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per frame and step.")] = False,
) -> None:
    """One POS terminal: signs on, does the steps in order, shows every frame masked. Exit 1 when a step is not answered 00."""
    wrong = [step for step in steps if not STEP.fullmatch(step)]
    if wrong or len(steps) > STEPS_MAX or account not in ACCOUNTS:
        raise typer.BadParameter(
            f"not a step: {', '.join(wrong)}" if wrong else "too many steps, or an unknown account"
        )
    if city is not None:
        device = _of_city(_read_city(city), terminal, mac, host, port)
    else:
        device = _of_options(host, port, terminal, merchant, mac, key_file, tmmk=tmmk)
    if pan or (device.card is None and any(step.startswith(("purchase", "balance")) for step in steps)):
        device = device._replace(card=_card(pan or typer.prompt("Card number", err=True), expiry), pin=None)
    if ask_pin:
        device = device._replace(pin=_pin(typer.prompt("PIN", hide_input=True, err=True)))
    first = trace if trace is not None else _trace_by_the_clock()
    if not asyncio.run(_do(device, steps, ACCOUNTS[account], first, timeout_s, as_json=as_json)):
        raise typer.Exit(1)


def _trace_by_the_clock() -> int:
    """Another one every tenth of a second, so that two runs in one batch do not mean the same request."""
    moment = datetime.now(SHANGHAI)
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second
    return (seconds * 10 + moment.microsecond // 100_000) % TENTHS_OF_A_DAY + 1


# --- what the device is given -------------------------------------------------------------------------------------------


def _read_city(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputRefused("--city: not readable as a city's description") from None
    if not isinstance(document, dict) or document.get("format") != "cardswitch-city/1":
        raise InputRefused("--city: not a city's description")
    return document


def _of_city(document: dict[str, Any], terminal_id: str, mac: int, host: str, port: int) -> Device:
    guests = document["guests"]["terminals"]
    chosen = (
        [one for one in document["terminals"] if one["terminal_id"] == terminal_id] if terminal_id else []
    )
    if terminal_id and not chosen:
        raise InputRefused("--terminal: the city has no such terminal")
    one = (chosen or [guest for guest in guests if guest["mac_algorithm"] == mac])[0]
    terminal = Terminal(
        one["terminal_id"], one["merchant_id"], bytes.fromhex(one["tmk"]), one["mac_algorithm"]
    )
    host, port = host or document["terminals_host"] or "", port or document["terminals_port"] or 0
    if not host or not port:
        raise InputRefused("--city: this city is not running; hold it with --hold")
    card = document["guests"]["cards"][1]
    data = CardData(card["pan"], card["sequence"], card["expiry"])
    return Device(terminal, Line(host, port), data, card["pin"])


def _of_options(
    host: str, port: int, terminal_id: str, merchant_id: str, mac: int, key_file: Path | None, *, tmmk: bool
) -> Device:
    if not port or not host:
        raise typer.BadParameter("--host and --port, or --city")
    if not _printable(terminal_id, 8) or not _printable(merchant_id, 15):
        raise typer.BadParameter("--terminal has 8 characters, --merchant 15")
    algorithm = MAC_ALGORITHM[mac]
    key = _key(key_file, "TMMK" if tmmk else "TMK")
    if tmmk:
        key = diversify(algorithm, key, terminal_id.encode("ascii"))
    typer.echo(f"TMK check value {check_value(algorithm, key).hex().upper()}", err=True)
    return Device(Terminal(terminal_id, merchant_id, key, mac), Line(host, port), None, None)


def _printable(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isprintable()


def _key(path: Path | None, name: str) -> bytes:
    if path is None:
        text = typer.prompt(f"{name}, 32 hex digits", hide_input=True, err=True)
    else:
        try:
            with path.open(encoding="ascii") as stream:
                text = stream.read(KEY_FILE_BYTES_MAX)
        except (OSError, ValueError):
            raise InputRefused("--key-file: not readable") from None
    digits = "".join(text.split())
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", digits):
        raise InputRefused(f"{name}: must be 32 hex digits")
    return bytes.fromhex(digits)


def _card(pan: str, expiry: str) -> CardData:
    try:
        digits = CardNumber(pan.strip()).reveal()
    except ValueError as error:
        raise InputRefused(f"--pan: {error}") from None
    if expiry and not re.fullmatch(r"\d{4}", expiry):
        raise InputRefused("--expiry: must be YYMM")
    return CardData(digits, expiry=expiry)


def _pin(text: str) -> str:
    if not re.fullmatch(r"[0-9]{4,12}", text):
        raise InputRefused("a PIN has 4 to 12 digits")
    return text


# --- what it does -------------------------------------------------------------------------------------------------------


class _Run:
    """The steps of one device, one after the other."""

    def __init__(self, client: ShownClient, device: Device, account: AccountKind) -> None:
        self.client = client
        self.device = device
        self.account = account
        self.last: Request | None = None  # purchase
        self.receipt: Receipt | None = None

    async def step(self, name: str, amount_fen: int) -> str:
        """Do one; the code it was answered."""
        client = self.client
        if name == "sign-on":
            return (await client.sign_on()).code
        if name == "echo":
            return (await client.echo()).code
        await client.ready()
        if name == "settle":
            await client.settle()
            return "00"
        if name == "sign-off":
            return (await client.sign_off()).code
        if name == "purchase":
            return await self._purchase(amount_fen)
        if name == "balance":
            assert self.device.card is not None
            return (await client.balance(self.device.card, pin=self.device.pin, account=self.account)).code
        return await self._about_the_last(name, amount_fen)

    async def _purchase(self, amount_fen: int) -> str:
        assert self.device.card is not None
        self.last = self.client.pos.purchase(
            self.device.card, amount_fen, pin=self.device.pin, account=self.account
        )
        self.receipt = None
        outcome = await self.client.transact(self.last)
        self.receipt = outcome.receipt
        if outcome.answer is None:
            return f"none, reversal {outcome.reversal or 'owed'}"
        return outcome.answer.code

    async def _about_the_last(self, name: str, amount_fen: int) -> str:
        client = self.client
        if self.last is None:
            raise NotNowError(f"{name}: no purchase before it")
        if name == "reversal":
            return (await client.exchange(client.pos.reversal(self.last, "98"))).code
        if name == "repeat":
            totals, receipts = client.pos.batch.accounts, list(client.pos.batch.receipts)
            code = (await client.exchange(self.last)).code
            client.pos.batch.accounts, client.pos.batch.receipts = totals, receipts  # it was booked once
            return code
        if self.receipt is None:
            raise NotNowError(f"{name}: the purchase was not approved")
        if name == "void":
            outcome = await client.void(self.receipt)
            return outcome.answer.code if outcome.answer else "none"
        return (await client.refund(self.receipt, amount_fen)).code


async def _do(
    device: Device,
    steps: Sequence[str],
    account: AccountKind,
    trace: int,
    timeout_s: float,
    *,
    as_json: bool,
) -> bool:
    console = Console(highlight=False, markup=False, soft_wrap=True)

    def show(direction: str, piece: Piece) -> None:
        _show(console, direction, piece, as_json=as_json)

    client = ShownClient(Pos(device.terminal, next_trace=trace), device.line, show, timeout_s=timeout_s)
    run = _Run(client, device, account)
    good = True
    try:
        for step in steps:
            name, _, amount = step.partition(":")
            fault = ""
            try:
                code = await run.step(name, _fen(amount))
            except (NoAnswerError, UnusableAnswerError, RefusedError, NotNowError) as error:
                code, fault = getattr(error, "code", ""), str(error)
            good = good and code == "00"
            if as_json:
                console.print(json.dumps({"step": step, "answer": code, "fault": fault}))
            else:
                console.print(f"{step}: {code or 'no answer'}{f' ({fault})' if fault else ''}\n")
    finally:
        client.close()
    return good


def _fen(yuan: str) -> int:
    whole, _, part = yuan.partition(".")
    return int(whole or "0") * 100 + int(part or "0")


def _show(console: Console, direction: str, piece: Piece, *, as_json: bool) -> None:
    shown = describe(piece)
    if as_json:
        console.print(json.dumps({"direction": direction, **shown.as_json()}, ensure_ascii=False))
        return
    console.print(f"{direction}: {shown.mti} {' '.join(MTI_NAMES.get(shown.mti, ()))}")
    for line in shown.lines:
        field = f"F{line.field}" if line.field.isdecimal() else line.field
        meaning = f"  ({line.meaning})" if line.meaning else ""
        console.print(f"  {line.offset:04d} {field:<6} {line.name} {line.chinese}: {line.value}{meaning}")
        for part in line.parts:
            meaning = f"  ({part.meaning})" if part.meaning else ""
            console.print(f"       - {part.name} {part.chinese}: {part.value}{meaning}")
    for fault in shown.faults:
        console.print(f"  ERROR at byte {fault.offset}: {fault.field} {fault.rule}")
