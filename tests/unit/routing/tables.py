"""Routing tables for tests: issuers of a small country, and rows written as an operator would."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

from switch.domain.calendar import SHANGHAI
from switch.domain.circles import Circle
from switch.registry.import_files import Faults
from switch.registry.issuers import Issuer, Participants
from switch.routing.destinations import DIGITS, Ask, Destination, RouteTable, Row
from switch.routing.route_check import Known, Warned, check
from switch.routing.route_format import ACCOUNTS, KINDS, read_rows

OWN, HANGZHOU, SHANGHAI_CARDS, FAR, HOME_ONLY = (
    "99993350FFFFFFFF",
    "99993310FFFFFFFF",
    "99992900FFFFFFFF",
    "99991000FFFFFFFF",
    "99993320FFFFFFFF",
)
TODAY = date(2026, 3, 15)
NOON = datetime(2026, 3, 15, 12, 0, tzinfo=SHANGHAI)
HEADER = "precedence,cards,issuer,scope,account,type,merchant,category,amount_fen,hours,valid_from,valid_to,to,note"
SHOP, HOSPITAL = "898335054110001", "898335080620001"
CATEGORIES: Mapping[str, str] = {SHOP: "5411", HOSPITAL: "8062"}


def issuer(issuer_id: str, bins: str, circle: Circle, scope: Circle = Circle.NATION) -> Issuer:
    """An issuer whose institution is named by the first eight digits of its id."""
    own = issuer_id == OWN
    return Issuer(issuer_id, issuer_id[:8], own, circle, scope, tuple(bins.split()), True)


PARTICIPANTS = Participants(
    (
        issuer(OWN, "313350 62335", Circle.LOCAL),
        issuer(HANGZHOU, "313310", Circle.HANGZHOU),
        issuer(SHANGHAI_CARDS, "312900", Circle.DELTA),
        issuer(FAR, "311000", Circle.NATION),
        issuer(HOME_ONLY, "313320", Circle.DELTA, Circle.HANGZHOU),
    ),
    {"99993350": Circle.NATION, "99993351": Circle.HANGZHOU},
)
KNOWN = Known(
    PARTICIPANTS,
    frozenset({"99993310", "99992900", "99991000", "99990000"}),
    frozenset(CATEGORIES),
    frozenset({"icbc", "ccb", "social"}),
)


def text(*rows: str | Mapping[str, str]) -> str:
    """A table's text. A row is `precedence to` with `column=value` between them, blanks in a value written `+`."""
    lines = [HEADER]
    for row in rows:
        if isinstance(row, str):
            first, *middle, last = row.split()
            cells = dict(part.split("=", 1) for part in middle)
            row = {"precedence": first, "to": last} | cells
        lines.append(",".join(row.get(name, "").replace("+", " ") for name in HEADER.split(",")))
    return "\n".join(lines) + "\n"


def rows_of(*rows: str | Mapping[str, str]) -> list[Row]:
    """Rows that must be readable."""
    faults = Faults()
    read = read_rows(text(*rows), "table", faults)
    assert not faults.found, faults.found
    return read


def table_of(*rows: str | Mapping[str, str], version: int = 1) -> RouteTable:
    """A compiled table, checked or not."""
    return RouteTable(rows_of(*rows), PARTICIPANTS, version=version)


def checked(*rows: str | Mapping[str, str], known: Known = KNOWN) -> tuple[list[str], list[Warned]]:
    """Faults, as `place field: rule`, and warnings of a table."""
    return checked_rows(rows_of(*rows), known)


def checked_rows(rows: Sequence[Row], known: Known = KNOWN) -> tuple[list[str], list[Warned]]:
    """The same of rows."""
    faults = Faults()
    table, warned = check(rows, known, faults, name="", today=TODAY)
    assert (table is None) == bool(faults.found)
    return [str(fault) for fault in faults.found], warned


def ask(
    digits: str,
    *,
    own: bool | None = None,
    account: str = "ONLINE",
    kind: str = "PURCHASE",
    merchant: str = SHOP,
    acquirer: str = "99993350",
    amount_fen: int = 1_000,
    at: datetime = NOON,
    bound: tuple[Destination, ...] | None = None,
) -> Ask:
    """A request. own: a card with digits of ours is one we have, unless said otherwise."""
    mine = digits.startswith(("313350", "62335")) if own is None else own
    number = int(digits.ljust(DIGITS, "0")[:DIGITS])
    category = CATEGORIES.get(merchant, "")
    return Ask(
        number, mine, ACCOUNTS[account], KINDS[kind], merchant, category, acquirer, amount_fen, at, bound
    )


def write(folder: Path, *rows: str | Mapping[str, str], name: str = "routes.csv") -> str:
    """A file of these rows; its name."""
    path = folder / name
    path.write_text(text(*rows), encoding="utf-8")
    return str(path)
