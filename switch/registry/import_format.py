"""What an import file may say, as data: kinds of record, their columns, and how each value is read.

The same tables read JSON (typed values) and CSV (text), name the columns of an export and of the staging tables, and are
what docs/registry.md describes. Rules name what is expected and never show what was found: it may be a PAN or a PIN.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from switch.domain.circles import Circle
from switch.domain.identifiers import CardNumber, asn_of, luhn_holds
from switch.domain.money import FIELD4_MAX
from switch.domain.transactions import AccountKind
from switch.keys.sm2 import Sm2Error, require_point

FORMAT: Final = "citizen-card-registry"
VERSION: Final = 1

Value = str | int | bool | None
Reader = Callable[[object], Value]
"""Takes a JSON value or the text of a CSV cell; raises ValueError with the rule that it breaks."""

CARD_STATES: Final = {  # stored numbers; their meaning is in docs/registry.md
    "READY": 0,
    "ACTIVE": 1,
    "LOSS_TEMP": 2,
    "LOSS_FORMAL": 3,
    "DAMAGED": 4,
    "EXPIRED": 5,
    "REPLACED": 6,
    "CANCEL_PENDING": 7,
    "CANCELLED": 8,
}
BINS_MAX: Final = 100  # of one issuer
_BIN: Final = re.compile("[0-9]{2,12}", re.ASCII).fullmatch
_INSTANT: Final = re.compile(
    r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
).fullmatch
ACCOUNT_KINDS: Final = {kind.name: int(kind) for kind in AccountKind}


def text(most: int) -> Reader:
    """1 to `most` printable characters without blanks at the ends."""

    def read(value: object) -> str:
        if (
            isinstance(value, str)
            and 0 < len(value) <= most
            and value.isprintable()
            and value == value.strip()
        ):
            return value
        raise ValueError(f"must be 1 to {most} printable characters, no blanks at the ends")

    return read


def shape(pattern: str, rule: str) -> Reader:
    """Text that matches a pattern as a whole; `rule` says it in words."""
    matches = re.compile(pattern, re.ASCII).fullmatch

    def read(value: object) -> str:
        if isinstance(value, str) and matches(value):
            return value
        raise ValueError(f"must be {rule}")

    return read


def whole(least: int, most: int) -> Reader:
    """A whole number, as such or as decimal text; never a fraction, never a truth value."""
    digits_max = len(str(most))

    def read(value: object) -> int:
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= digits_max:
            value = int(value)
        if type(value) is int and least <= value <= most:
            return value
        raise ValueError(f"must be a whole number from {least} to {most}")

    return read


def word(words: dict[str, Any]) -> Reader:
    """One of a few words; gives what the word stands for."""
    rule = "must be one of " + ", ".join(words)

    def read(value: object) -> Value:
        if isinstance(value, str) and value in words:
            found: Value = words[value]
            return found
        raise ValueError(rule)

    return read


def truth(value: object) -> bool:
    """Read true or false."""
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise ValueError("must be true or false")


def day(value: object) -> str:
    """A calendar day as YYYY-MM-DD."""
    if isinstance(value, str) and len(value) == 10:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise ValueError("must be a day as YYYY-MM-DD")


def instant(value: object) -> str:
    """An instant with its offset from UTC; given back in UTC."""
    if isinstance(value, str) and _INSTANT(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC).isoformat()
        except ValueError:
            pass
    raise ValueError("must be an instant like 2026-03-15T10:30:00+08:00")


def pan(value: object) -> str:
    """A card number of 13 to 19 digits, the last of which is its Luhn digit."""
    if isinstance(value, str) and 13 <= len(value) <= 19 and value.isascii() and value.isdecimal():
        if luhn_holds(value):
            return value
        raise ValueError("the check digit (Luhn) is wrong")
    raise ValueError("must be 13 to 19 digits, as text")


def sm2_public_key(value: object) -> str:
    """An SM2 public key that is a point of the curve: 04, x and y in upper-case hex."""
    digits = shape("04[0-9A-F]{128}", "130 upper-case hex digits that begin with 04")(value)
    assert isinstance(digits, str)
    try:
        require_point(bytes.fromhex(digits))
    except Sm2Error as error:
        raise ValueError("must be a point of the SM2 curve") from error
    return digits


def bins(value: object) -> str:
    """Leading digits of card numbers, told apart by blanks; read in any order, kept in one."""
    parts = value.split(" ") if isinstance(value, str) and len(value) <= BINS_MAX * 13 else []
    if not 0 < len(parts) <= BINS_MAX or not all(_BIN(part) for part in parts):
        raise ValueError(f"must be 1 to {BINS_MAX} numbers of 2 to 12 digits with a blank between them")
    if len(set(parts)) != len(parts):
        raise ValueError("names the same leading digits twice")
    return " ".join(sorted(parts))


def _same(words: str) -> dict[str, str]:
    return {one: one for one in words.split()}


fen = whole(0, FIELD4_MAX)
counter = whole(0, 0xFFFF)
institution_id = shape("[0-9]{8}", "8 digits")
merchant_id = shape("[ -~]{15}", "exactly 15 printable ASCII characters")
terminal_id = shape("[ -~]{8}", "exactly 8 printable ASCII characters")
category = shape("[0-9]{4}", "4 digits (ISO 18245)")
circle = word({one.name: one.name for one in Circle})
party_state = word(_same("ACTIVE CLOSED"))


class Column(NamedTuple):
    """One value of a record. `sql`: type in the staging table. `secret`: read, never staged in clear, exported or shown."""

    name: str
    read: Reader
    sql: str = "text"
    required: bool = False
    default: Value = None
    secret: bool = False


class Reference(NamedTuple):
    """A column that must name a record of another kind, in these files or already known."""

    column: str
    kind: str


class Kind(NamedTuple):
    """A kind of record.

    key: its columns which together name it. singular: its name in the log of changes.
    """

    name: str
    singular: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    references: tuple[Reference, ...] = ()
    rules: tuple[Callable[[dict[str, Value]], tuple[str, str] | None], ...] = ()

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """Those that reach the staging table."""
        return tuple(column for column in self.columns if not column.secret)


Record = dict[str, Value]


def _one_scope(record: Record) -> tuple[str, str] | None:
    if record["merchant_id"] is not None and record["category"] is not None:
        return "category", "a rule is for a merchant, for a category, or for all (neither)"
    return None


def _circle(record: Record) -> tuple[str, str] | None:
    """Our own cards are at home here. Of another issuer we know no better than that it is somewhere in the country."""
    if record["circle"] is None:
        record["circle"] = Circle.LOCAL.name if record["own"] else Circle.NATION.name
    elif record["own"] and record["circle"] != Circle.LOCAL.name:
        return "circle", "an own issuer is LOCAL"
    return None


def _weights(record: Record) -> tuple[str, str] | None:
    if record["weight_issuer"] == record["weight_switch"] == record["weight_acquirer"] == 0:
        return "weight_issuer", "one of the three weights must be above 0"
    return None


def _in_order(first: str, last: str) -> Callable[[Record], tuple[str, str] | None]:
    def rule(record: Record) -> tuple[str, str] | None:
        begin, end = record[first], record[last]
        if isinstance(begin, str) and isinstance(end, str) and end < begin:  # ISO days compare as text
            return last, f"must not be before {first}"
        return None

    return rule


def _asn(record: Record) -> tuple[str, str] | None:
    number = record["pan"]
    assert isinstance(number, str)
    derived = asn_of(CardNumber(number))
    if record["asn"] is None:
        record["asn"] = derived
    elif record["asn"] != derived:
        return "asn", "must be the card number, filled with zeros in front to 20 digits"
    return None


def _purse(record: Record) -> tuple[str, str] | None:
    if record["purse_opening_fen"] is None:
        for name in ("purse_online_atc", "purse_offline_atc"):
            if record[name] is not None:
                return name, "needs purse_opening_fen"
    else:
        record["purse_online_atc"] = record["purse_online_atc"] or 0
        record["purse_offline_atc"] = record["purse_offline_atc"] or 0
    return None


def _confirmed(record: Record) -> tuple[str, str] | None:
    if record["holder_confirmed"] is not True:
        return "holder_confirmed", "must be true: the bank confirms that the account is this holder's"
    return None


def _two_cards(record: Record) -> tuple[str, str] | None:
    if record["bank_card"] == record["pan"]:
        return "bank_card", "must not be the citizen card itself"
    return None


KINDS: Final = (  # in the order in which they depend on each other
    Kind(
        "institutions",
        "institution",
        ("institution_id",),
        (
            Column("institution_id", institution_id, required=True),
            Column("name", text(100), required=True),
            Column("role", word(_same("ISSUER ACQUIRER BANK CITY CENTRE")), required=True),
            Column("scope", circle, default=Circle.NATION.name),
        ),
    ),
    Kind(
        "card_issuers",
        "card issuer",
        ("issuer_id",),
        (
            Column(
                "issuer_id",
                shape("[0-9A-F]{16}", "16 hexadecimal digits, letters in upper case"),
                required=True,
            ),
            Column("institution_id", institution_id, required=True),
            Column("own", truth, "boolean", required=True),
            Column("bins", bins),
            Column("circle", circle),
            Column("scope", circle, default=Circle.NATION.name),
        ),
        (Reference("institution_id", "institutions"),),
        (_circle,),
    ),
    Kind(
        "merchants",
        "merchant",
        ("merchant_id",),
        (
            Column("merchant_id", merchant_id, required=True),
            Column("name", text(100), required=True),
            Column("category", category, required=True),
            Column("acquirer_id", institution_id, required=True),
            Column("state", party_state, default="ACTIVE"),
        ),
        (Reference("acquirer_id", "institutions"),),
    ),
    Kind(
        "terminals",
        "terminal",
        ("terminal_id",),
        (
            Column("terminal_id", terminal_id, required=True),
            Column("merchant_id", merchant_id, required=True),
            Column("mac_algorithm", whole(1, 5), "smallint", required=True),
            Column("sm2_public_key", sm2_public_key),
            Column("cash_loads", truth, "boolean", default=False),
            Column("state", party_state, default="ACTIVE"),
        ),
        (Reference("merchant_id", "merchants"),),
    ),
    Kind(
        "psams",
        "PSAM",
        ("psam_no",),
        (
            Column("psam_no", shape("[0-9]{12}", "12 digits"), required=True),
            Column("merchant_id", merchant_id, required=True),
            Column("terminal_id", terminal_id),
            Column("state", party_state, default="ACTIVE"),
        ),
        (Reference("merchant_id", "merchants"), Reference("terminal_id", "terminals")),
    ),
    Kind(
        "fee_rules",
        "fee rule",
        ("merchant_id", "category", "account_kind", "valid_from"),
        (
            Column("merchant_id", merchant_id),
            Column("category", category),
            Column("account_kind", word(ACCOUNT_KINDS), "smallint", required=True),
            Column("rate_ppm", whole(0, 1_000_000), "integer", required=True),
            Column("minimum_fen", fen, "bigint", default=0),
            Column("cap_fen", fen, "bigint"),
            Column("weight_issuer", whole(0, 1_000_000), "integer", default=7),
            Column("weight_switch", whole(0, 1_000_000), "integer", default=1),
            Column("weight_acquirer", whole(0, 1_000_000), "integer", default=2),
            Column("valid_from", day, "date", required=True),
            Column("valid_to", day, "date"),
        ),
        (Reference("merchant_id", "merchants"),),
        (_one_scope, _weights, _in_order("valid_from", "valid_to")),
    ),
    Kind(
        "cards",
        "card",
        ("pan",),
        (
            Column("pan", pan, required=True),
            Column("asn", shape("[0-9]{20}", "20 digits")),
            Column("holder", text(64)),
            Column("state", word(CARD_STATES), "smallint", default=CARD_STATES["ACTIVE"]),
            Column("valid_from", day, "date", required=True),
            Column("valid_through", day, "date", required=True),
            Column("online_opening_fen", fen, "bigint"),
            Column("medical_opening_fen", fen, "bigint"),
            Column("pin", shape("[0-9]{4,12}", "4 to 12 digits, as text"), secret=True),
            Column("purse_opening_fen", fen, "bigint"),
            Column("purse_online_atc", counter, "integer"),
            Column("purse_offline_atc", counter, "integer"),
        ),
        (),
        (_asn, _purse, _in_order("valid_from", "valid_through")),
    ),
    Kind(
        "bindings",
        "binding",
        ("institution_id", "agreement_id"),
        (
            Column("institution_id", institution_id, required=True),
            Column("agreement_id", shape("[!-~]{1,32}", "1 to 32 printable ASCII characters"), required=True),
            Column("pan", pan, required=True),
            Column("bank_card", pan, secret=True),
            Column("is_default", truth, "boolean", default=True),
            Column("holder_confirmed", truth, "boolean", required=True),
            Column("confirmed_at", instant, "timestamptz", required=True),
            Column("transaction_limit_fen", fen, "bigint"),
            Column("day_limit_fen", fen, "bigint"),
            Column("state", word(_same("ACTIVE ENDED")), default="ACTIVE"),
        ),
        (Reference("institution_id", "institutions"), Reference("pan", "cards")),
        (_confirmed, _two_cards),
    ),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}
CARDS: Final = BY_NAME["cards"]
BINDINGS: Final = BY_NAME["bindings"]
PLAIN: Final = tuple(kind for kind in KINDS if kind not in (CARDS, BINDINGS))  # one row each, in one table


def subject(kind: Kind, record: Record) -> str:
    """The name of a record within its kind; `*` where a part of the key is empty."""
    return " ".join("*" if record[name] is None else str(record[name]) for name in kind.key)
