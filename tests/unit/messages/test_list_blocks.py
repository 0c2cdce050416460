"""The worked example of docs/lists.md, made and read: what terminal makers go by is what the switch sends."""

import re
from pathlib import Path

from switch.keys import sm2
from switch.messages.list_blocks import pack_manifest, slot_of
from terminal_sim.lists import ListKeeper
from tests.helpers.lists import MADE_AT, SIGNING_KEY, Manifest, make_target

DOCUMENT = (Path(__file__).parents[3] / "docs" / "lists.md").read_text(encoding="utf-8")
LOCKED, REFUSED, NEW = (
    bytes.fromhex(f"0{pan}") for pan in ("3133500100000045673", "3133500100000890128", "3133500100000001239")
)


def printed() -> list[bytes]:
    """The bytes of the blocks of hex in the document: public key, full list, increment, manifest."""
    found = re.findall(r"^```\n((?:[0-9A-F]{2,}\n)+)```", DOCUMENT, re.MULTILINE)
    return [bytes.fromhex(text.replace("\n", "")) for text in found]


def test_the_worked_example_is_what_the_encoder_makes_and_the_terminal_reads() -> None:
    public, full, increment, manifest = printed()
    assert public == SIGNING_KEY.public
    old, new = {LOCKED: b"\x01", REFUSED: b"\x00"}, {LOCKED: b"\x01", NEW: b"\x01"}
    before, broker = make_target("HOT", 41, old, {})
    after, more = make_target("HOT", 43, new, {41: old})
    assert broker.messages == {"ccs/v1/list/hot/41/F/1": full}
    assert more.messages["ccs/v1/list/hot/43/I41/1"] == increment
    body = pack_manifest(Manifest("HOT", 7, MADE_AT, 1, 25, ("33500005",), (after, before)))
    assert manifest[:-64] == body
    sm2.verify(public, body, manifest[-64:])
    assert [slot_of(terminal_id) for terminal_id in ("33500001", "33500002", "33500005")] == [68, 35, 84]
    for terminal_id, version in (("33500001", 41), ("33500002", 41), ("33500005", 43)):
        keeper = ListKeeper(terminal_id, {1: public})
        keeper.take("ccs/v1/list/hot/now", manifest)
        for topic, block in (broker.messages | more.messages).items():
            keeper.take(topic, block)
        held = keeper.lists["hot"]
        assert (held.version, held.entries) == (version, old if version == 41 else new)
