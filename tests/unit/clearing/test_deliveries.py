"""What partners write, made fit to be kept, and which names are receipts. How files travel: tests/scenarios and tests/faults."""

import ast
import inspect
import textwrap
from typing import Any

import pytest

from switch.clearing.day_files import DayFiles
from switch.clearing.deliveries import plain as made_plain
from switch.clearing.deliveries import receipt_name
from switch.clearing.hot_list_files import plan_hot_lists
from switch.clearing.layouts import LAYOUTS
from switch.clearing.own_cards import ANSWER
from switch.domain.errors import ConfigurationError
from switch.settings import Settings, load_settings

NAME = "CM999900009999331020240315001"
PARTNER: dict[str, Any] = {
    "name": "second", "parties": ["99993310"], "since": "2024-03-15", "host": "sftp.example", "user": "us",
    "key_file": "/etc/key", "host_key": "ssh-ed25519 AAAA", "folder": "/in",
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("02 not known\nand more", "02 not known and more"),
        ("card 3133500100000001239.", "card 313350*********1239."),
        (f"file {NAME}", f"file {NAME}"),  # a file's name is no card number
        ("\x1b[2J\x00\u202e", "[2J"),
        ("x" * 199 + "3133500100000001239", "x" * 199 + "3"),
        ("x" * 190 + " 3133500100000001239", "x" * 190 + " 313350***"),
    ],
)
def test_what_a_partner_wrote_is_one_line_bounded_and_masked(written: str, kept: str) -> None:
    assert made_plain(written) == kept


def test_only_a_files_name_with_ack_or_rej_is_a_receipt() -> None:
    assert receipt_name(f"{NAME}.ack") == (NAME, True)
    assert receipt_name(f"{NAME}.rej") == (NAME, False)
    for other in (NAME, f"{NAME}.ok", f"{NAME}.ack.tmp", "notes.ack", f"../{NAME[3:]}.ack", ".rej"):
        assert receipt_name(other) is None


def test_a_partner_whose_server_is_not_known_is_refused_as_a_setting() -> None:
    assert Settings.model_validate({"delivery": {"partners": [PARTNER]}}).delivery.partners[0].port == 22
    for changes, words in (
        ({"host_key": ""}, "exactly one of host_key and known_hosts"),
        ({"known_hosts": "/etc/known"}, "exactly one of host_key and known_hosts"),
        ({"outbox": "/in/"}, "folder and outbox must differ"),
        ({"pause_s": 1000}, "shortest pause"),
        ({"folder": "in"}, "folder"),
        ({"password": "x"}, "Extra inputs"),
        ({"types": ["CM", "NO"]}, "types of files are XF, FH, DF"),
        ({"sends": ["xf"]}, "types of files are XF, FH, DF"),
    ):
        with pytest.raises(ValueError, match=words):
            Settings.model_validate({"delivery": {"partners": [{**PARTNER, **changes}]}})
    with pytest.raises(ValueError, match="same name"):
        Settings.model_validate({"delivery": {"partners": [PARTNER, PARTNER]}})
    with pytest.raises(ConfigurationError, match="CARDSWITCH_DELIVERY__PARTNERS: not JSON"):
        load_settings(environment={"CARDSWITCH_DELIVERY__PARTNERS": "no"})


def test_a_partner_gets_every_type_that_a_day_has_unless_his_settings_say_otherwise() -> None:
    planned = {ANSWER}
    for planner in (DayFiles.plan, plan_hot_lists):
        tree = ast.parse(textwrap.dedent(inspect.getsource(planner)))
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        planned |= {word for word in words if word in LAYOUTS}
    assert planned >= {"NP", "CM", "NS", "QS", "SS", "MR", "TR", "FH", "DT", "ER"}
    wanted = Settings.model_validate({"delivery": {"partners": [PARTNER]}}).delivery.partners[0].types
    assert planned <= set(wanted)
    assert set(LAYOUTS) - set(wanted) == {"XF"}
