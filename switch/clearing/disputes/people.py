"""Who acts in a case: people, and members by their files."""

from typing import Final

from switch.domain.errors import InputRefused
from switch.domain.people import NAME_MAX, another, person

__all__ = ["MEMBER", "NAME_MAX", "both", "one"]
MEMBER: Final = "member "  # how the maker of what came in a member's file is called, before its number


def one(field: str, name: str) -> str:
    """A person's name as it is kept. InputRefused when there is none, or when it would pass for a member."""
    text = person(field, name)
    if text.casefold().startswith((MEMBER, "disputes.")):
        raise InputRefused(f"{field}: a person's name, not a member's or a setting's")
    return text


def both(maker: str, checker: str) -> str:
    """The checker, another person than the maker."""
    return another("checker", one("checker", checker), maker)
