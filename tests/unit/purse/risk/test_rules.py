"""A file of rules is read whole or refused with the place, the field and the rule that it breaks; nothing of it reaches the database."""

from pathlib import Path

import pytest

from switch.purse.risk.features import FEATURES, feature_query
from switch.purse.risk.rules import (
    CONDITIONS_MAX,
    FAULTS_MAX,
    FILE_BYTES_MAX,
    RULES_MAX,
    Condition,
    Matter,
    Rule,
    RulesRefused,
    read_rules,
)

ROOT = Path(__file__).parents[4]
GOOD = """format = 1

[[rule]]
name = "many-rides"
matter = "card"
when = ["card_rides_1h >= 12", "amount_fen>0"]
note = "why"
"""


def refused(content: str | bytes) -> list[str]:
    with pytest.raises(RulesRefused) as caught:
        read_rules(content.encode() if isinstance(content, str) else content)
    return [str(fault) for fault in caught.value.faults]


def test_a_rule_is_what_its_file_says() -> None:
    when = (Condition("card_rides_1h", ">=", 12), Condition("amount_fen", ">", 0))
    assert read_rules(GOOD.encode()) == (Rule("many-rides", Matter.CARD, when, "why"),)


def test_the_rules_to_begin_with_can_be_used() -> None:
    rules = read_rules((ROOT / "deploy/risk.toml").read_bytes())
    assert len(rules) >= 12


def test_a_key_of_the_file_that_is_no_word_is_not_printed() -> None:
    forged = '"a\\nline 9: all is well\\u001b[2J" = 1\n'
    assert refused(forged + GOOD) == ["is unknown; known are format and rule"]
    assert refused("colour = 1\n" + GOOD) == ["colour: is unknown; known are format and rule"]


TABLE = """
name = "many-rides"                  name = "Many rides"                   line 3: rule number 1: name: must be 2 to 40
name = "many-rides"                                                        line 3: rule number 1: name: must be 2 to 40
matter = "card"                      matter = "bus"                        line 3: rule many-rides: matter: must be one of card
matter = "card"                      matter = ["card"]                     line 3: rule many-rides: matter: must be one of card
note = "why"                         note = 7                              line 3: rule many-rides: note: must be text
note = "why"                         severity = 7                          line 3: rule many-rides: severity: is unknown
note = "why"                         "x; DROP TABLE card" = 7              line 3: rule many-rides: is unknown; known are name
"amount_fen>0"                       "amount_fen > 0; DROP TABLE card"     comparison 2: must read
"amount_fen>0"                       "amount_fen > (SELECT 1)"             comparison 2: must read
"amount_fen>0"                       "amount_fen > 0.5"                    comparison 2: must read
"amount_fen>0"                       "amount_fen > ٣"                      comparison 2: must read
"amount_fen>0"                       7                                     comparison 2: must read
"amount_fen>0"                       "pan > 0"                             comparison 2: figure is unknown
"amount_fen>0"                       "amount_fen > 1000000000001"          comparison 2: number must be between
"amount_fen>0"                       "ride > 0"                            comparison 2: ride is 0 or 1
"amount_fen>0"                       "ride = 2"                            comparison 2: ride is 0 or 1
["card_rides_1h >= 12", "amount_fen>0"]   []                               when: must be a list of 1 to 8
["card_rides_1h >= 12", "amount_fen>0"]   "card_rides_1h >= 12"            when: must be a list of 1 to 8
format = 1                           format = 2                            format: must be 1
format = 1                           format = true                         format: must be 1
format = 1                           format = 1\\nrules = 2                 rules: is unknown
format = 1                           format 1                              line 1: is no TOML
[[rule]]                             [rule]                                rule: must be tables
"""


@pytest.mark.parametrize("row", TABLE.strip().splitlines(), ids=lambda row: row[37:75].strip() or "left out")
def test_what_is_wrong_is_named_by_line_rule_and_field(row: str) -> None:
    find, put, says = row[:37].strip(), row[37:75].strip(), row[75:].strip()
    if find.startswith('["'):
        find, put = row[:42].strip(), row[42:75].strip()
    assert find in GOOD
    faults = refused(GOOD.replace(find, put.replace("\\n", "\n")))
    assert len(faults) == 1
    assert says in faults[0]
    assert "DROP" not in faults[0]


def test_every_fault_is_told_at_once_and_those_of_the_second_rule_at_its_line() -> None:
    second = GOOD.partition("\n\n")[2].replace('"card"', '"bus"').replace("amount_fen>0", "nothing > 0")
    faults = refused(GOOD + second)
    assert [fault.split(": ")[0] for fault in faults] == ["line 8", "line 8"]
    assert refused(GOOD + GOOD.partition("\n\n")[2]) == ["line 8: rule many-rides: name: stands twice"]


def test_a_line_that_only_looks_like_a_head_gives_no_wrong_number() -> None:
    text = GOOD.replace('note = "why"', 'note = """\n[[rule]]\n"""')
    assert refused(text) == [
        "rule many-rides: note: must be text of one line with at most 200 printable characters"
    ]


def test_a_file_is_bounded() -> None:
    rule = GOOD.partition("\n\n")[2]
    many = "".join(rule.replace("many-rides", f"rule-{n}") for n in range(RULES_MAX + 1))
    assert refused("format = 1\n" + many) == [f"rule: must stand 1 to {RULES_MAX} times"]
    assert refused("format = 1\n") == [f"rule: must stand 1 to {RULES_MAX} times"]
    assert refused(b" " * (FILE_BYTES_MAX + 1))[0].startswith("a file of rules has at most")
    long = ", ".join(['"hour > 1"'] * (CONDITIONS_MAX + 1))
    assert "1 to 8" in refused(GOOD.replace('"card_rides_1h >= 12", "amount_fen>0"', long))[0]
    bad = "".join(rule.replace('"card"', '"x"').replace("many-rides", "?") for _ in range(RULES_MAX))
    assert len(refused("format = 1\n" + bad.replace('note = "why"', "a = 1"))) == FAULTS_MAX


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"a = " + b"[" * 20_000, b"format = " + b"9" * 20_000, b'format = 1\nx = "\0"', b""],
    ids=["no text", "deep", "a long number", "a zero byte", "empty"],
)
def test_noise_is_refused_and_nothing_else_happens(content: bytes) -> None:
    assert refused(content)


def test_a_statement_is_made_of_our_own_words_only() -> None:
    names = sorted(FEATURES)
    query = feature_query(names)
    assert all(f" AS f_{name}" in query for name in names)
    assert "%" not in query
