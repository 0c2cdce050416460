"""Totals of a terminal's batch, compared with what the terminal claims. Pure.

Group 1 is of online and medical accounts: debit purchases and completions, credit voids, completion voids and refunds.
Group 2 is of the purse: debit offline records taken in this batch, credit loads. Reversed transactions count nowhere.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from switch.domain.money import FIELD4_MAX, Fen
from switch.domain.transactions import GroupTotals, Kind

COUNT_MAX: Final = 999  # field 48 has three digits
FEN_MAX: Final = FIELD4_MAX  # and twelve
BALANCED, UNBALANCED, UNDECIDED = "1", "2", "3"

DEBITS: Final = (Kind.PURCHASE, Kind.COMPLETION, Kind.COMPLETION_ADVICE)
CREDITS: Final = (Kind.VOID, Kind.REFUND, Kind.COMPLETION_VOID)
Sums = Mapping[int, tuple[int, int]]  # kind -> count, fen


class Difference(NamedTuple):
    """One line of the report about a batch. stan: 0 when it is about no single transaction."""

    matter: str  # TOTALS, COUNT, NOT_HERE, NOT_THERE, AMOUNT, CARD
    stan: int
    claimed: str
    booked: str


class Figures(NamedTuple):
    """The switch's own totals of a batch; counts are not cut off."""

    accounts: GroupTotals
    purse: GroupTotals

    @classmethod
    def of(cls, sums: Sums, taken: int, taken_fen: int) -> "Figures":
        """From sums by kind of transaction, and the offline records taken."""
        debit_count, debit_fen = _added(sums, DEBITS)
        credit_count, credit_fen = _added(sums, CREDITS)
        load_count, load_fen = _added(sums, (Kind.LOAD,))
        return cls(
            GroupTotals(Fen(debit_fen), debit_count, Fen(credit_fen), credit_count),
            GroupTotals(Fen(taken_fen), taken, Fen(load_fen), load_count),
        )

    def digits(self, accounts_flag: str, purse_flag: str) -> str:
        """Field 48 with these figures, 62 digits; counts stop at 999 and amounts at twelve nines."""
        return digits_of(self.accounts) + accounts_flag + digits_of(self.purse) + purse_flag


def _added(sums: Sums, kinds: Sequence[Kind]) -> tuple[int, int]:
    found = [sums[kind] for kind in kinds if kind in sums]
    return sum(count for count, _ in found), sum(fen for _, fen in found)


def digits_of(group: GroupTotals) -> str:
    """The 30 digits of one group of field 48 before its result.

    >>> digits_of(GroupTotals(Fen(10**12), 1_000, Fen(20), 3))
    '999999999999999000000000020003'
    """
    return "".join(
        f"{min(fen, FEN_MAX):012d}{min(count, COUNT_MAX):03d}"
        for fen, count in (
            (group.debit_fen, group.debit_count),
            (group.credit_fen, group.credit_count),
        )
    )


def compare(claimed: GroupTotals, booked: GroupTotals) -> str:
    """The result digit: 1 balanced, 2 unbalanced, 3 when a count or an amount is beyond what its digits can claim.

    >>> one = GroupTotals(Fen(100), 1, Fen(0), 0)
    >>> (
    ...     compare(one, one),
    ...     compare(one, one._replace(debit_fen=Fen(101))),
    ...     compare(one, one._replace(debit_count=1000)),
    ...     compare(one, one._replace(debit_fen=Fen(10**12))),
    ... )
    ('1', '2', '3', '3')
    """
    if max(booked.debit_count, booked.credit_count) > COUNT_MAX:
        return UNDECIDED
    if max(booked.debit_fen, booked.credit_fen) > FEN_MAX:
        return UNDECIDED
    return BALANCED if claimed == booked else UNBALANCED


def group_differences(claimed: str, booked: Figures) -> list[Difference]:
    """Groups whose 30 digits in a stored field 48 are not ours."""
    ours = booked.digits("0", "0")
    return [
        Difference("TOTALS", 0, claimed[start : start + 30], ours[start : start + 30])
        for start in (0, 31)
        if claimed[start : start + 30] != ours[start : start + 30]
    ]


Line = tuple[int, int, str]  # trace, fen, card number


def detail_differences(sent: Collection[Line], booked: Collection[Line]) -> list[Difference]:
    """Details as a terminal sent them against what was booked, both by trace; a trace sent twice counts once, the last."""
    theirs = {stan: (fen, pan) for stan, fen, pan in sent}
    ours = {stan: (fen, pan) for stan, fen, pan in booked}
    found: list[Difference] = []
    for stan in sorted(theirs.keys() | ours.keys()):
        if stan not in ours:
            found.append(Difference("NOT_HERE", stan, str(theirs[stan][0]), ""))
        elif stan not in theirs:
            found.append(Difference("NOT_THERE", stan, "", str(ours[stan][0])))
        elif theirs[stan][0] != ours[stan][0]:
            found.append(Difference("AMOUNT", stan, str(theirs[stan][0]), str(ours[stan][0])))
        elif theirs[stan][1] != ours[stan][1]:  # numbers stay in terminal_batch_detail and the journal
            found.append(Difference("CARD", stan, "another card", "see journal"))
    return found


def count_difference(claimed: int, counted: int) -> list[Difference]:
    """Whether a batch end counts what came."""
    return [] if claimed == counted else [Difference("COUNT", 0, str(claimed), str(counted))]
