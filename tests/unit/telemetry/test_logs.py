"""What must not be read in a log."""

import json
import subprocess
import sys

import pytest

from switch.telemetry.logs import mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("card 3133500100000001239", "card 313350*********1239"),
        ("asn 03133500100000001239", "asn 031335**********1239"),
        ("Key (pan)=(3133500100001) exists", "Key (pan)=(313350***0001) exists"),
        ("stan 000001 of batch 000123", "stan 000001 of batch 000123"),
        (
            "two at once 31335001000000012393133500100000001239",
            "two at once 313350****************************1239",
        ),
    ],
)
def test_a_run_of_digits_that_could_be_a_card_number_is_masked(text: str, shown: str) -> None:
    assert mask(None, "", {"event": text}) == {"event": shown}


def test_what_a_name_calls_secret_prints_as_its_length() -> None:
    event = {"event": "x", "pin_block": "0123", "mak_key": b"12", "field_52": "1", "kcv": "AABBCCDD"}
    assert mask(None, "", event) == {
        "event": "x",
        "pin_block": "<4 characters>",
        "mak_key": "<2 characters>",
        "field_52": "<1 characters>",
        "kcv": "AABBCCDD",
    }


def test_what_a_library_says_is_one_masked_line_too() -> None:
    program = """
import logging
from switch.telemetry.logs import configure
configure()
configure()
logging.getLogger("psycopg.pool").warning("error connecting:\\n%s", "3133500100000001239")
try:
    {}["gone"]
except KeyError:
    logging.getLogger("aiomqtt").exception("unexpected")
logging.getLogger("asyncio").info("nobody needs this")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = map(json.loads, ran.stderr.splitlines())
    assert (first["logger"], first["level"], first["event"]) == (
        "psycopg.pool",
        "warning",
        "error connecting:\n313350*********1239",
    )
    assert (second["level"], second["event"]) == ("error", "unexpected")
    assert "KeyError" in second["exception"]
