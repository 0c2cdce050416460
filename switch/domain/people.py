"""Who acts: names of people, and that two of them are two. Whoever proposes anything and whoever approves it are compared here and nowhere else.

Names are what people type, so this keeps nobody from typing another's. It keeps one name from passing for two: in other letters' case, with other
spaces, in full-width letters, in Cyrillic or Greek ones that look like Latin, or with characters in it that nobody sees.
"""

import unicodedata
from typing import Final

from switch.domain.errors import InputRefused

NAME_MAX: Final = 100
_LOOKS_LIKE: Final = str.maketrans(
    dict(zip("авекмнорстухіјѕԁԛԝοανρτυικχ", "abekmhopctyxijsdqwoavptuikx", strict=True))
)
_UNSEEN: Final = dict.fromkeys((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, *range(0xFE00, 0xFE10)))


def person(field: str, name: str) -> str:
    """A person's name as it is kept. InputRefused when there is none."""
    text = " ".join(unicodedata.normalize("NFKC", name).translate(_UNSEEN).split())
    if not 0 < len(text) <= NAME_MAX or not text.isprintable():
        raise InputRefused(f"{field}: a name of 1 to {NAME_MAX} characters")
    return text


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's.

    >>> same_person("li wei", " Li  WEI "), same_person("li wei", "li wen")
    (True, False)
    """
    return as_seen(one) == as_seen(other)


def another(field: str, name: str, maker: str) -> str:
    """The name of a person other than the one who asked. InputRefused when it is the same, or none."""
    text = person(field, name)
    if same_person(text, maker):
        raise InputRefused(f"{field}: another person than the one who asked")
    return text


def as_seen(name: str) -> str:
    """What a reader sees of a name; equal for one person's."""
    text = unicodedata.normalize("NFKC", name).translate(_UNSEEN)
    return " ".join(text.casefold().translate(_LOOKS_LIKE).split())
