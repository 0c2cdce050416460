"""Requests of a terminal and the answers that may settle them: what is checked before an answer is believed."""

from enum import Enum
from typing import NamedTuple

from switch.domain.errors import FormatError, FramingError
from switch.domain.transactions import Kind
from switch.messages.codec import decode
from switch.messages.message import Message
from terminal_sim.frames import Fields, PinPad
from terminal_sim.pos_batch import Receipt

NO_ANSWER, UNUSABLE, MAC_WRONG, OTHER = "98", "96", "A0", "06"  # reasons of a reversal
WITHOUT_MAC = frozenset(("30", "03", "97", "77"))  # answers of a switch that has no keys for us


class UnusableAnswerError(Exception):
    """An answer came and cannot be used. `reason` is what a reversal would say."""

    def __init__(self, reason: str, rule: str) -> None:
        self.reason = reason
        super().__init__(rule)


class Request(NamedTuple):
    """Something to be sent. key: the MTI of its answer and its trace (0 in an echo)."""

    kind: Kind | str  # a Kind, or field 60.3 of an administrative message
    mti: str
    fields: Fields
    with_mac: bool
    key: tuple[str, int]
    receipt: Receipt | None = None  # of the original, in voids and refunds

    def __repr__(self) -> str:
        name = self.kind.name if isinstance(self.kind, Kind) else self.kind
        return f"Request({self.mti} {name}, trace={self.key[1]})"


class Answer(NamedTuple):
    """A usable answer. receipt: of an approved transaction."""

    code: str
    processing: int
    message: Message
    receipt: Receipt | None = None

    @property
    def approved(self) -> bool:
        """Field 39 is 00."""
        return self.code == "00"


class Balanced(Enum):
    """Result digits of field 48."""

    YES = "1"
    NO = "2"
    UNDECIDED = "3"


def checked_answer(request: Request, body: bytes, pin_pad: PinPad | None) -> Message:
    """Read an answer (a frame without LEN) and hold it against its request; UnusableAnswerError with the reason."""
    try:
        message = decode(body)
    except (FormatError, FramingError) as error:
        raise UnusableAnswerError(UNUSABLE, str(error)) from error
    fields = message.fields
    if (message.mti, int(fields.get(11, "0"))) != request.key:
        raise UnusableAnswerError(UNUSABLE, "another request's answer")
    code = fields.get(39)
    if request.with_mac and (64 in fields or code not in WITHOUT_MAC):
        if 64 not in fields:
            raise UnusableAnswerError(MAC_WRONG, "field 64 is missing")
        if pin_pad is None or not pin_pad.mac_holds(message.mab, message.field64):
            raise UnusableAnswerError(MAC_WRONG, "the MAC is wrong")
    if code is None:
        raise UnusableAnswerError(UNUSABLE, "field 39 is missing")
    same = (41, 42) if code != "00" else (3, 4, 41, 42)
    if any(fields.get(n) != request.fields[n] for n in same if n in request.fields):
        raise UnusableAnswerError(UNUSABLE, "an echoed field differs")
    return message


def balance_flags(answer: Answer) -> tuple[Balanced, Balanced]:
    """Result digits of an 0510: accounts, purse. UnusableAnswerError when field 48 does not have them."""
    field48 = answer.message.fields.get(48, "")
    if len(field48) != 62 or field48[30] not in "123" or field48[61] not in "123":
        raise UnusableAnswerError(UNUSABLE, "field 48 has no result digits")
    return Balanced(field48[30]), Balanced(field48[61])
