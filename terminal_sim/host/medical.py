"""A social-security centre's books: medical accounts, and the policy by which they pay. Its refusals are 57, as a switch's own would be.

The policy is small on purpose: who may take the account, for what, and whether the person is insured at all. Own-pay ratios and catalogues
of drugs are a matter of the centre and its hospitals; to a switch they look like any other refusal.
"""

from collections.abc import Iterable
from typing import Final

from terminal_sim.host.book import CODE_BALANCE, CODE_PURCHASE, CODE_RETURN, Account, Fields, HostBook

NOT_PERMITTED: Final = "57"
MEDICAL: Final = "40"  # account type, digits 3 and 4 of field 3
PHARMACY: Final = 5912
HEALTH: Final = range(8011, 8100)  # doctors, dentists, hospitals, laboratories (ISO 18245)
SERVED: Final = frozenset({CODE_PURCHASE, CODE_BALANCE, CODE_RETURN})


class MedicalBook(HostBook):
    """suspended: card numbers of persons who are not insured at the moment; they may look, and not pay."""

    def __init__(self, accounts: Iterable[Account], suspended: Iterable[str] = ()) -> None:
        super().__init__(accounts)
        self._suspended = frozenset(suspended)

    def refusal(self, mti: str, fields: Fields) -> str | None:
        """57 for what a medical account is not for. An advice tells what has been decided, and a return gives back: both are taken."""
        code, account = str(fields.get(3, ""))[:2], str(fields.get(3, ""))[2:4]
        if account != MEDICAL or code not in SERVED:
            return NOT_PERMITTED
        if code != CODE_PURCHASE or mti == "0220":
            return None
        if str(fields.get(2, "")) in self._suspended or not designated(str(fields.get(18, ""))):
            return NOT_PERMITTED
        return None


def designated(category: str) -> bool:
    """Whether a merchant of this category may take the medical account."""
    return category.isdecimal() and (int(category) == PHARMACY or int(category) in HEALTH)
