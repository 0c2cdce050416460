"""Who acts: names of people, and that two of them are two."""

import unicodedata
from typing import Final

from switch.domain.errors import InputRefused

NAME_MAX: Final = 100
MEMBER: Final = "member "  # how the maker of what came in a member's file is called, before its number


def one(field: str, name: str) -> str:
    """A person's name as it is kept. InputRefused when there is none, or when it would pass for a member."""
    text = " ".join(unicodedata.normalize("NFKC", name).split())
    if not 0 < len(text) <= NAME_MAX or not text.isprintable():
        raise InputRefused(f"{field}: a name of 1 to {NAME_MAX} characters")
    if text.casefold().startswith((MEMBER, "disputes.")):
        raise InputRefused(f"{field}: a person's name, not a member's or a setting's")
    return text


def both(maker: str, checker: str) -> str:
    """The checker, another person than the maker."""
    text = one("checker", checker)
    if text.casefold() == maker.casefold():
        raise InputRefused("checker: another person than the one who asked")
    return text
