"""Identifiers: each checks itself once, when it is made, and masks itself when it is shown."""

from datetime import date


class CardNumber:
    """A primary account number (PAN), 13 to 19 digits. Prints masked: first six and last four (PCI DSS 4.0, 3.4.1)."""

    __slots__ = ("_digits",)

    def __init__(self, digits: str) -> None:
        if not (13 <= len(digits) <= 19 and digits.isascii() and digits.isdecimal()):
            raise ValueError("card number must be 13 to 19 digits")  # never echo it
        self._digits = digits

    def reveal(self) -> str:
        """The digits, for the codec, storage and key derivation only."""
        return self._digits

    def __str__(self) -> str:
        digits = self._digits
        return f"{digits[:6]}{'*' * (len(digits) - 10)}{digits[-4:]}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CardNumber) and other._digits == self._digits

    def __hash__(self) -> int:
        return hash(self._digits)


def mask_pan(digits: str) -> str:
    """Mask a PAN that is not (yet) a CardNumber; what cannot be one shows only its length.

    >>> mask_pan("3133500100000001239"), mask_pan("12ab")
    ('313350*********1239', '<4 characters>')
    """
    try:
        return str(CardNumber(digits))
    except ValueError:
        return f"<{len(digits)} characters>"


def luhn_digit(payload: str) -> str:
    """The check digit that makes payload + digit pass the Luhn test (ISO/IEC 7812-1 annex B).

    >>> luhn_digit("313350010000000123")
    '9'
    """
    total = 0
    for place, char in enumerate(reversed(payload)):
        digit = int(char)
        if place % 2 == 0:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return str(-total % 10)


def luhn_holds(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    return luhn_digit(digits[:-1]) == digits[-1]


def asn_of(card: CardNumber) -> str:
    """The application serial number 應用序列號 of a citizen card: `0` + its 19 digits (20 digits, 10 bytes BCD)."""
    return card.reveal().rjust(20, "0")


def mask_asn(asn: str) -> str:
    """Mask an application serial number: its filler and the card number in it, masked like any other.

    >>> mask_asn("03133500100000001239"), mask_asn("12")
    ('0313350*********1239', '<2 characters>')
    """
    return (
        asn[0] + mask_pan(asn[1:])
        if len(asn) == 20 and asn.isascii() and asn.isdecimal()
        else f"<{len(asn)} characters>"
    )


def diversifier_of(asn: str) -> bytes:
    """The 8 bytes by which card keys are derived: the last 16 digits of the ASN."""
    return bytes.fromhex(asn[-16:])


BusinessDate = date  # a clearing date 清算日期; see domain.calendar for how an instant becomes one
