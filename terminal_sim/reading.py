"""Between a validator and a card: the field, the status words, and the papers a card shows everybody."""

from typing import NamedTuple, Protocol

from terminal_sim.apdu import Sw
from terminal_sim.card_os import AIDS


class Reader(Protocol):
    """A card in the field. Raises CardGoneError when it has left."""

    def transmit(self, raw: bytes) -> bytes:
        """One APDU."""


class CardGoneError(Exception):
    """閃卡: the card left the field; whether it did what it was told last is not known."""


class CardRejectedError(Exception):
    """The validator does not take this card, or the card refused. `status` is the card's status word, if it was the card."""

    def __init__(self, rule: str, status: int = 0) -> None:
        self.status = status
        super().__init__(f"{rule} ({status:04X})" if status else rule)


class Resettable(Reader, Protocol):
    """A card that can be taken away."""

    def reset(self) -> None:
        """Power off."""


class FlakyReader:
    """A card held too briefly: gone at command number `at` (1 is the first), before or after the card obeyed it."""

    def __init__(self, card: Resettable, at: int, *, obeyed: bool) -> None:
        self._card = card
        self._left = at
        self._obeyed = obeyed

    def transmit(self, raw: bytes) -> bytes:
        """One APDU, until the card goes."""
        self._left -= 1
        if self._left > 0:
            return self._card.transmit(raw)
        if self._left == 0 and self._obeyed:
            self._card.transmit(raw)
        self._card.reset()
        raise CardGoneError("the card left the field")


class CardFacts(NamedTuple):
    """What the public files say."""

    asn: str
    issuer_id: bytes
    enabled: int
    valid_from: str  # YYYYMMDD
    valid_to: str
    city_code: bytes
    interoperable: bool
    card_type: int

    def __repr__(self) -> str:
        return f"CardFacts(asn=…{self.asn[-4:]})"


def body_of(answer: bytes, step: str) -> bytes:
    status = int.from_bytes(answer[-2:])
    if status != Sw.OK:
        raise CardRejectedError(f"{step} was refused", status)
    return answer[:-2]


def ask(device: Reader, raw: bytes, step: str) -> bytes:
    return body_of(device.transmit(raw), step)


def read_facts(card: Reader) -> CardFacts:
    """SELECT the purse and read its public and management files."""
    ask(card, b"\x00\xa4\x04\x00" + bytes((len(AIDS[0]),)) + AIDS[0] + b"\x00", "SELECT")
    public = ask(card, bytes.fromhex("00B095001E"), "public file")
    management = ask(card, bytes.fromhex("00B097003C"), "management file")
    return CardFacts(
        asn=public[10:20].hex(),
        issuer_id=public[:8],
        enabled=public[9],
        valid_from=public[20:24].hex(),
        valid_to=public[24:28].hex(),
        city_code=management[6:8],
        interoperable=management[8:10] == b"\x00\x01",
        card_type=management[10],
    )
