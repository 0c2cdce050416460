"""The catalogue of card transactions: which MTI, processing code, condition code and transaction type go together."""

from typing import NamedTuple

from switch.domain.transactions import Kind


class Row(NamedTuple):
    """One transaction. code: digits TT of field 3; condition: field 25; type: 60.1."""

    kind: Kind
    mti: str
    code: str
    condition: str
    type: str
    reversible: bool = False  # a missing answer obliges the terminal to send 0400


CATALOGUE = (
    Row(Kind.BALANCE, "0200", "31", "00", "01"),
    Row(Kind.PURCHASE, "0200", "00", "00", "22", reversible=True),
    Row(Kind.VOID, "0200", "20", "00", "23", reversible=True),
    Row(Kind.REFUND, "0220", "20", "00", "25"),
    Row(Kind.PRE_AUTHORISATION, "0100", "03", "06", "10", reversible=True),
    Row(Kind.PRE_AUTHORISATION_VOID, "0100", "20", "06", "11", reversible=True),
    Row(Kind.COMPLETION, "0200", "00", "06", "20", reversible=True),
    Row(Kind.COMPLETION_VOID, "0200", "20", "06", "21", reversible=True),
    Row(Kind.COMPLETION_ADVICE, "0220", "00", "06", "24"),
    Row(Kind.LOAD, "0200", "60", "91", "45", reversible=True),
    Row(Kind.LOAD, "0200", "62", "91", "47", reversible=True),
    Row(Kind.LOAD, "0200", "63", "91", "46", reversible=True),
    Row(Kind.LOAD_CONFIRM, "0220", "60", "91", "45"),
    Row(Kind.LOAD_CONFIRM, "0220", "62", "91", "47"),
    Row(Kind.LOAD_CONFIRM, "0220", "63", "91", "46"),
)
KIND_OF = {(row.mti, row.code, row.condition, row.type): row.kind for row in CATALOGUE}
assert len(KIND_OF) == len(CATALOGUE), "what is on the wire names one transaction"
REVERSIBLE = {(row.code, row.condition, row.type): row.kind for row in CATALOGUE if row.reversible}
CODES = frozenset(row.code for row in CATALOGUE)
CASH_WITHDRAWAL = "01"
TYPES_NOT_SUPPORTED = frozenset({"36", "51"})  # offline purchase goes in records; there is no cash-load void
