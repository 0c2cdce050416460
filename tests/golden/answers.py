"""An answer of today held against the golden one: the same fields with the same values, but for what is listed here.

What is listed must differ, or may, and has a form of its own that is checked instead. docs/golden_frames.md shows the list to terminal
makers, and a test holds the two together.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from hmac import compare_digest
from types import MappingProxyType
from typing import Final, NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import FormatError
from switch.messages.hot_list import read_block
from switch.messages.message import Message
from switch.messages.parameters import read_parameter_block
from terminal_sim import crypto
from terminal_sim.crypto import Algorithm, CheckValueError
from terminal_sim.frames import PinPad, Terminal
from tests.golden.requests import Told, card_key, is_sign_on, tags_of


class Exchange(NamedTuple):
    """A request of today and its answer, beside the golden ones. original: what the request names."""

    golden_request: Message
    golden_answer: Message
    request: Message
    answer: Message
    terminal: Terminal
    pin_pad: PinPad | None
    original: Told | None

    def __repr__(self) -> str:
        return f"Exchange({self.request!r}, {self.answer!r})"


class Difference(NamedTuple):
    """What differs, why, and what is checked instead."""

    what: str
    reason: str
    holds: Callable[[Exchange], bool]


def _near(month_day: str) -> bool:
    """Whether MMDD is today, or, around midnight and after the cut-off, the day beside it."""
    now = datetime.now(SHANGHAI)
    return month_day in {(now + timedelta(days=step)).strftime("%m%d") for step in (-1, 0, 1)}


def _time(exchange: Exchange) -> bool:
    return re.fullmatch("([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]", exchange.answer.fields[12]) is not None


def _reference(exchange: Exchange) -> bool:
    found: str = exchange.answer.fields[37]
    if exchange.golden_request.fields.get(37) == exchange.golden_answer.fields[37]:
        return bool(found == exchange.request.fields[37])
    if exchange.request.mti == "0400" and exchange.original is not None:
        return bool(found == exchange.original.answer.fields[37])
    if re.fullmatch("[0-9]{4}([01][0-9]|2[0-3])[0-9A-Z]{6}", found) is None:
        return False
    now = datetime.now(SHANGHAI)
    days = {(now + timedelta(days=step)).strftime("%Y%j")[3:] for step in (-1, 0)}
    return found[:4] in days


def _authorisation(exchange: Exchange) -> bool:
    found: str = exchange.answer.fields[38]
    if exchange.golden_request.fields.get(38) == exchange.golden_answer.fields[38]:
        return bool(found == exchange.request.fields[38])
    return re.fullmatch("[0-9A-Z]{6}", found) is not None


def _batch(exchange: Exchange) -> bool:
    found, gold = exchange.answer.fields[60], exchange.golden_answer.fields[60]
    if (found[:2], found[8:]) != (gold[:2], gold[8:]):
        return False
    if is_sign_on(exchange.request):
        return bool(int(found[2:8]) > 0)
    return bool(found == exchange.request.fields[60])


def _mac(exchange: Exchange) -> bool:
    assert exchange.pin_pad is not None
    return exchange.pin_pad.mac_holds(exchange.answer.mab, exchange.answer.field64)


def _working_keys(exchange: Exchange) -> bool:
    terminal = exchange.terminal
    try:
        keys = crypto.unwrap_working_keys(terminal.algorithm, terminal.tmk, exchange.answer.fields[62])
    except CheckValueError:
        return False
    return len(exchange.answer.fields[62]) == 40 and keys.pin != keys.mac


def _list_version(exchange: Exchange) -> bool:
    found, gold = (read_block(m.fields[62]) for m in (exchange.answer, exchange.golden_answer))
    return found.version > 0 and found._replace(version=gold.version) == gold


def _parameters(exchange: Exchange) -> bool:
    found, gold = (read_parameter_block(m.fields[62]) for m in (exchange.answer, exchange.golden_answer))
    known = {tag for tag, _ in gold.values}
    beside = [tag for tag, _ in found.values if tag not in known]
    return (
        found.more == gold.more
        and tuple(value for value in found.values if value[0] in known) == gold.values
        and set(beside) <= {"28", "29", "30"}
    )


def _load_mac(exchange: Exchange) -> bool:
    asked, told = tags_of(exchange.request), tags_of(exchange.answer)
    if list(told) != ["DF21", "DF22", "DF23"]:
        return False
    algorithm = Algorithm(asked["DF15"][1])
    dlk = card_key("DLK", algorithm, asked["DF12"], asked["DF11"])
    seed = crypto.load_seed(asked["DF16"], int.from_bytes(asked["DF14"]))
    amount = int(exchange.request.fields[4]).to_bytes(4)
    data = amount + asked["DF19"] + asked["DF18"] + told["DF21"] + told["DF22"]
    mac2 = crypto.purse_mac(algorithm, crypto.session_key(algorithm, dlk, seed), data)
    fields = exchange.answer.fields
    return (
        compare_digest(told["DF23"], mac2)
        and told["DF21"].hex()[4:] == fields[13]
        and told["DF22"].hex() == fields[12]
    )


def _institutions(exchange: Exchange) -> bool:
    return bool(exchange.answer.fields[44] == "99993350   99993350   ")


EVERYWHERE: Final[Mapping[int, Difference]] = MappingProxyType(
    {
        12: Difference("12", "the time of the answer: hhmmss", _time),
        13: Difference("13", "the date of the answer: MMDD", lambda e: _near(e.answer.fields[13])),
        15: Difference(
            "15",
            "the clearing date: MMDD, after the cut-off the next day",
            lambda e: _near(e.answer.fields[15]),
        ),
        37: Difference(
            "37",
            "a new reference in the layout YDDDhhnnnnnn; where the golden answer repeats the reference of its original, today's",
            _reference,
        ),
        38: Difference(
            "38",
            "a new authorisation code of six digits or capitals; where the golden answer repeats that of its original, today's",
            _authorisation,
        ),
        60: Difference(
            "60.2",
            "the batch that the terminal has open; on a fresh seed it is 000002, as in the golden frames",
            _batch,
        ),
        64: Difference("64", "the MAC under today's MAK, which is checked", _mac),
    }
)

HERE: Final[Mapping[tuple[str, int], Difference]] = MappingProxyType(
    {
        ("ISO-01-SIGNON-RSP", 62): Difference(
            "62 of a sign-on", "freshly drawn keys; 40 bytes, both check values are checked", _working_keys
        ),
        ("ISO-20-SM4-SIGNON-RSP", 62): Difference(
            "62 of a sign-on", "freshly drawn keys; 40 bytes, both check values are checked", _working_keys
        ),
        **{
            (name, 55): Difference(
                "55 of a load",
                "the instant of the load in DF21 and DF22, which 13 and 12 repeat, and MAC2 over it, which the card would accept",
                _load_mac,
            )
            for name in ("ISO-09-LOAD-RSP", "ISO-10-CASHLOAD-RSP", "ISO-11-NDLOAD-RSP")
        },
        ("ISO-16-BLACKLIST-RSP", 62): Difference(
            "62 of a hot list",
            "the version is counted from 1 at every switch; all else of the block is compared",
            _list_version,
        ),
        ("ISO-17-PARAM-RSP", 62): Difference(
            "62 of a parameter download",
            "this switch also sends 28, 29 and 30; the golden values are compared, and nothing else may come",
            _parameters,
        ),
    }
)

# Answers whose header has another digit 6, the digit, and the reason.
PROCESSING: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "ISO-18-BADMAC-RSP": (
            3,
            "a wrong MAC says sign on again (3): the switch keeps no key that was replaced, so it cannot tell a spoilt MAC from one under old keys",
        )
    }
)

# Fields that a golden answer has and ours may or must leave out, and the reason.
LEFT_OUT: Final[Mapping[tuple[str, int], str]] = MappingProxyType(
    {
        (
            "ISO-03-BALANCE-RSP",
            44,
        ): "an 0210 may carry 44; the golden frames have it in two of thirteen. This switch sends none",
        (
            "ISO-04-PURCHASE-RSP",
            44,
        ): "an 0210 may carry 44; the golden frames have it in two of thirteen. This switch sends none",
        (
            "ISO-08-MEDICAL-RSP",
            15,
        ): "a decline is not posted, so it has no clearing date: the golden frame shows form only",
    }
)


def differences_of(vector_id: str, number: int) -> Difference | None:
    """What is said about a field of a golden answer, or None: then it must be the same."""
    return HERE.get((vector_id, number)) or EVERYWHERE.get(number)


def _holds(listed: Difference, exchange: Exchange) -> bool:
    try:
        return listed.holds(exchange)
    except FormatError:  # of what stands inside the field
        return False


def faults_of(vector_id: str, exchange: Exchange) -> list[str]:
    """Where an answer of today differs from the golden one and should not; empty when it is as it should be."""
    gold, found = exchange.golden_answer, exchange.answer
    if vector_id in PROCESSING:
        head = gold.header
        gold = gold._replace(header=head[:2] + bytes((head[2] & 0xF0 | PROCESSING[vector_id][0],)) + head[3:])
    faults = [
        f"{name} is {getattr(found, name)!r}, golden {getattr(gold, name)!r}"
        for name in ("tpdu", "header", "mti")
        if getattr(found, name) != getattr(gold, name)
    ]
    faults += [
        f"field {number} is not in the golden answer" for number in found.fields if number not in gold.fields
    ]
    for number, value in gold.fields.items():
        if number not in found.fields:
            if (vector_id, number) not in LEFT_OUT:
                faults.append(f"field {number} is missing")
            continue
        listed = differences_of(vector_id, number)
        if listed is None:
            if found.fields[number] != value:
                faults.append(f"field {number} is {found.fields[number]!r}, golden {value!r}")
        elif not _holds(listed, exchange):
            faults.append(f"field {number} has not the form it should have: {listed.reason}")
    return faults
