"""Lists by topic for tests: a broker's memory of retained messages, and lists that are made without a database."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from switch.keys import sm2
from switch.keys.primitives import sm3
from switch.messages.list_blocks import (
    BLOCK_ENTRIES_MAX,
    LAYOUTS,
    Form,
    Manifest,
    Target,
    block_topic,
    blocks_of,
    form_digest,
    manifest_topic,
    pack_block,
    pack_manifest,
)
from terminal_sim.lists import ListKeeper, ListRefusedError

SIGNING_KEY: Final = sm2.key_pair(bytes(range(1, 33)))
MADE_AT: Final = datetime(2024, 3, 15, 0, 30, tzinfo=UTC)  # 08:30 in Shanghai
Entries = Mapping[bytes, bytes]  # key to what the list says about it


class Retained:
    """A broker with one client at a time: the last message of each topic."""

    def __init__(self) -> None:
        self.messages: dict[str, bytes] = {}
        self.published = 0

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        assert retain
        self.published += 1
        if payload:
            self.messages[topic] = payload
        else:
            self.messages.pop(topic, None)

    def serve(self, keeper: ListKeeper, *, rounds: int = 4) -> list[str]:
        """Subscribe to what a terminal wants until it wants nothing more; the rules by which it refused messages."""
        refused = []
        for _ in range(rounds):
            for topic in keeper.wanted_topics():
                if topic in self.messages:
                    try:
                        keeper.take(topic, self.messages[topic])
                    except ListRefusedError as error:
                        refused.append(str(error))
        return refused


class MadeForm(NamedTuple):
    """A form and its messages."""

    form: Form
    messages: dict[str, bytes]


def make_form(kind: str, base: int, version: int, packed: bytes) -> MadeForm:
    """Cut packed entries into blocks."""
    size = LAYOUTS[kind].entry_bytes
    count, step = len(packed) // size, BLOCK_ENTRIES_MAX * size
    blocks = blocks_of(count)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)] or [b""]
    made = [pack_block(kind, base, version, number, blocks, piece) for number, piece in enumerate(pieces, 1)]
    topics = [block_topic(kind, version, base, number) for number in range(1, blocks + 1)]
    digest = form_digest([block[-32:] for block in made])
    return MadeForm(Form(base, blocks, count, digest), dict(zip(topics, made, strict=True)))


def packed_full(entries: Entries) -> bytes:
    return b"".join(b"A" + key + entries[key] for key in sorted(entries))


def packed_increment(old: Entries, new: Entries) -> bytes:
    off = [b"D" + key + bytes(len(old[key])) for key in sorted(old.keys() - new.keys())]
    return b"".join(off + [b"A" + key + new[key] for key in sorted(new) if old.get(key) != new[key]])


def make_target(
    kind: str, version: int, entries: Entries, bases: Mapping[int, Entries]
) -> tuple[Target, Retained]:
    """A version as it goes out, with increments from others."""
    broker = Retained()
    full = make_form(kind, 0, version, packed_full(entries))
    made = [
        full,
        *(make_form(kind, base, version, packed_increment(old, entries)) for base, old in bases.items()),
    ]
    for one in made:
        broker.messages |= one.messages
    digest = sm3(packed_full(entries))
    return Target(version, len(entries), digest, tuple(one.form for one in made)), broker


def signed(kind: str, serial: int, targets: Iterable[Target], **changes: object) -> bytes:
    """A manifest for everybody, unless changes say otherwise."""
    manifest = Manifest(kind, serial, MADE_AT, 1, 100, (), tuple(targets))
    body = pack_manifest(manifest._replace(**changes))
    return body + sm2.sign(SIGNING_KEY, body)


def keeper_of(terminal_id: str = "33500001", category: str = "") -> ListKeeper:
    return ListKeeper(terminal_id, {1: SIGNING_KEY.public}, category)


def hot(numbers: Iterable[int], level: int = 1) -> dict[bytes, bytes]:
    return {bytes.fromhex(f"0313350019{number:010d}"): bytes([level]) for number in numbers}


def now_topic(kind: str) -> str:
    return manifest_topic(kind)
