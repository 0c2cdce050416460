"""One name never passes for two people."""

import pytest

from switch.domain.errors import InputRefused
from switch.domain.people import another, as_seen, person, same_person

#   name of the maker, name of the checker, one person
CASES = (
    ("li wei", "li wei", True),
    ("li wei", "Li Wei", True),
    ("li wei", "  li   wei ", True),
    ("li wei", "\u3000li\u3000wei", True),  # spaces as wide as a Chinese character
    ("li wei", "\uff2c\uff29 \uff37\uff25\uff29", True),  # full-width letters
    ("li wei", "l\u0456 w\u0435i", True),  # Cyrillic i and e
    ("anna", "\u0391nn\u03b1", True),  # Greek
    ("li wei", "li wei\ufe0f", True),  # a variation selector
    ("li wei", "li \u3164wei", True),  # a filler that is no space
    ("strasse", "stra\u00dfe", True),
    ("李伟", "李 伟", False),
    ("李伟", "李衛", False),
    ("li wei", "li wen", False),
    ("li wei", "liwei", False),
)


@pytest.mark.parametrize(("maker", "checker", "same"), CASES)
def test_what_looks_the_same_is_one_person(maker: str, checker: str, same: bool) -> None:
    assert same_person(maker, checker) is same
    assert same_person(checker, maker) is same
    if same:
        with pytest.raises(InputRefused, match="another person"):
            another("checker", checker, maker)
    else:
        assert another("checker", checker, maker) == checker


@pytest.mark.parametrize("name", ["", " ", "\u3000", "\u3164", "a\x1bb", "a\u200bb", "a\u202eb", "x" * 101])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputRefused, match="checker: a name"):
        person("checker", name)


def test_a_name_is_kept_as_it_reads() -> None:
    assert person("actor", " \uff2ci   Wei ") == "Li Wei"
    assert as_seen("Li Wei") == "li wei"
