"""What the replay sends: with the golden keys it is the golden frames themselves, so nothing else of them is changed."""

from datetime import date

import pytest

from switch.messages.codec import decode
from tests.golden.requests import Today, golden, original_key, rebuilt, vectors
from tests.unit.golden.helpers import REQUESTS, golden_originals, golden_pad

DAY = date(2024, 3, 15)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_made_for_the_golden_day_is_the_golden_frame_byte_for_byte(name: str) -> None:
    today = Today(golden_pad(vectors()[name]), "", golden_originals(), DAY)
    assert rebuilt(name, today).hex().upper() == vectors()[name]["frame"][4:]


@pytest.mark.parametrize("name", REQUESTS)
def test_another_day_changes_the_named_fields_only(name: str) -> None:
    message = golden(name)
    today = Today(golden_pad(vectors()[name]), "000777", golden_originals(), date(2026, 11, 25))
    changed = decode(rebuilt(name, today)).fields
    assert changed.keys() == message.fields.keys()
    differ = {number for number in changed if changed[number] != message.fields[number]}
    expected = {60, 64} & set(message.fields)
    if message.fields[60][8:11] in ("003", "005"):
        expected = set()
    if "OFFLINE" in name:
        expected |= {62}
    assert differ == expected
    assert original_key(message) is None or original_key(message) in golden_originals()
