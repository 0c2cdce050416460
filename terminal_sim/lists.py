"""A terminal's lists by topic 名單: manifests and blocks come in any order, and the list in force changes whole or not at all.

Written from docs/lists.md, without the switch's encoder, and with the terminal's own SM2: nobody between the switch and the terminal is
trusted. Of a broker's tricks (old messages, lost, doubled or foreign blocks) none does more than leave the terminal with the list it has.
"""

from binascii import crc_hqx
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SM3, Hash

from terminal_sim import sm2

SIGNATURE: Final = 64
DIGEST: Final = 32
ENTRIES_MAX: Final = 1_000_000
# code of the kind, bytes of an entry, bytes of its key; which digit names it in tag 36
KINDS: Final = {"hot": (b"H", 12, 10, "1"), "city": (b"C", 11, 9, "2"), "param": (b"P", 20, 11, "3")}
# second digit of tag 36
BAD_MANIFEST, BAD_BLOCK, BAD_LIST = "1", "2", "3"


class ListRefusedError(Exception):
    """What came may not be used. reason: second digit of tag 36."""

    def __init__(self, reason: str, rule: str) -> None:
        super().__init__(rule)
        self.reason = reason


class Form(NamedTuple):
    """A way to a version. base 0: the full list."""

    base: int
    blocks: int
    entries: int
    digest: bytes


class Target(NamedTuple):
    """A version in force."""

    version: int
    entries: int
    digest: bytes
    forms: tuple[Form, ...]


class Manifest(NamedTuple):
    """A manifest whose signature was right."""

    serial: int
    made_at: datetime  # local time without a zone, as on the device
    percent: int
    named: frozenset[str]
    targets: tuple[Target, ...]


@dataclass(slots=True)
class HeldList:
    """One kind of list. entries: key to what the list says about it."""

    version: int = 0
    entries: dict[bytes, bytes] = field(default_factory=dict)
    serial: int = 0
    fresh_at: datetime | None = None
    refusal: str = ""
    wanted: Target | None = None
    form: Form | None = None
    made_at: datetime | None = None
    blocks: dict[int, bytes] = field(default_factory=dict)


class ListKeeper:
    """All lists of a terminal. keys: public keys that sign lists, by version, given to it when it was installed."""

    def __init__(self, terminal_id: str, keys: Mapping[int, bytes], category: str = "") -> None:
        """category: of its merchant, four digits, as it was set up."""
        self._terminal_id = terminal_id
        self._category = category
        self._slot = crc_hqx(terminal_id.encode("ascii"), 0xFFFF) % 100
        self._keys = keys
        self.lists = {kind: HeldList() for kind in KINDS}

    def wanted_topics(self) -> list[str]:
        """What to subscribe to: the manifests, and every block that is still missing. Again after a while, if they do not come."""
        topics = [f"ccs/v1/list/{kind}/now" for kind in KINDS]
        for kind, held in self.lists.items():
            if held.wanted is not None and held.form is not None:
                way = f"I{held.form.base}" if held.form.base else "F"
                head = f"ccs/v1/list/{kind}/{held.wanted.version}/{way}/"
                topics += [
                    f"{head}{number}"
                    for number in range(1, held.form.blocks + 1)
                    if number not in held.blocks
                ]
        return topics

    def take(self, topic: str, payload: bytes) -> None:
        """A message from the broker. ListRefusedError when it may not be used; the list in force is then what it was."""
        kind, _, rest = topic.removeprefix("ccs/v1/list/").partition("/")
        held = self.lists.get(kind)
        if held is None or not payload:  # an empty one takes a retained message away
            return
        try:
            if rest == "now":
                self._manifest(kind, held, payload)
            else:
                _block(kind, held, payload)
        except ListRefusedError as error:
            held.refusal = KINDS[kind][3] + error.reason
            raise

    def stale(self, kind: str, now: datetime, days_max: int) -> bool:
        """Whether nobody has confirmed the list for longer than the parameter allows. now: local time."""
        fresh_at = self.lists[kind].fresh_at
        return fresh_at is None or now - fresh_at > timedelta(days=days_max)

    def hot_list(self) -> dict[str, int]:
        """ASN to level, as a validator's rules have it."""
        return {key.hex(): said[0] for key, said in self.lists["hot"].entries.items()}

    def issuers(self) -> set[bytes]:
        """Issuer ids whose cards may ride."""
        return {key[1:] for key in self.lists["city"].entries if key[:1] == b"I"}

    def cities(self) -> set[bytes]:
        """Codes of cities whose interoperable cards may ride."""
        found = self.lists["city"].entries.items()
        return {key[1:3] for key, said in found if key[:1] == b"C" and said == b"\x01"}

    def parameters(self) -> dict[str, str]:
        """Tag to value, as the narrowest scope that says something about it has it."""
        values: dict[str, str] = {}
        scopes = (f"{'*':9}", f"C{self._category:8}", f"T{self._terminal_id}")
        for scope in (text.encode("ascii") for text in scopes):
            for key, said in self.lists["param"].entries.items():
                if key[:9] == scope:
                    values[key[9:].decode("ascii")] = said.decode("ascii")
        return values

    def status(self) -> dict[str, str]:
        """Tags 31, 33, 34 and, where something was refused, 36 of a status upload."""
        tags = {
            tag: f"{self.lists[kind].version:08d}"
            for tag, kind in (("31", "hot"), ("33", "city"), ("34", "param"))
        }
        refusals = [held.refusal for held in self.lists.values() if held.refusal]
        return tags | ({"36": refusals[0]} if refusals else {})

    # --- manifests

    def _manifest(self, kind: str, held: HeldList, payload: bytes) -> None:
        manifest = self._read_manifest(kind, payload)
        if manifest.serial < held.serial:
            return  # somebody keeps old messages
        held.serial = manifest.serial
        first = self._slot < manifest.percent or self._terminal_id in manifest.named
        target = manifest.targets[0 if first else -1]
        # Also where it is no longer meant: a roll-out that was stopped leaves those that it reached with what they have.
        in_force = [one for one in manifest.targets if one.version == held.version]
        if any(_digest_of(held.entries) == one.digest for one in in_force):
            held.fresh_at = manifest.made_at
            if target.version <= held.version:
                held.wanted, held.form, held.refusal = None, None, ""
                held.blocks.clear()
                return
        if target.version < held.version:
            return
        if held.wanted != target:
            held.blocks.clear()
            # A list of this version that is not the one that was signed is of no use to stand on.
            base = held.version if target.version > held.version else 0
            held.wanted, held.form = target, _best(target, base)
        held.made_at = manifest.made_at

    def _read_manifest(self, kind: str, payload: bytes) -> Manifest:
        body, signature = payload[:-SIGNATURE], payload[-SIGNATURE:]
        if len(payload) < 20 + SIGNATURE or body[:5] != b"ELM1" + KINDS[kind][0]:
            raise ListRefusedError(BAD_MANIFEST, "manifest: not of this kind")
        public = self._keys.get(body[16])
        if public is None:
            raise ListRefusedError(BAD_MANIFEST, "manifest: signed by a key that is not known here")
        try:
            sm2.verify(public, body, signature)
        except sm2.Sm2Error as error:
            raise ListRefusedError(BAD_MANIFEST, "manifest: the signature is wrong") from error
        # Signed, so the switch made it; still it is read as if somebody else had.
        made_at = datetime.strptime(body[9:16].hex(), "%Y%m%d%H%M%S")  # noqa: DTZ007 - devices know no zone
        many = int.from_bytes(body[18:20])
        at = 20 + 8 * many
        named = frozenset(body[place : place + 8].decode("ascii") for place in range(20, at, 8))
        targets = []
        count, at = body[at], at + 1
        for _ in range(count):
            version, entries, digest, forms = (
                int.from_bytes(body[at : at + 4]),
                int.from_bytes(body[at + 4 : at + 8]),
                body[at + 8 : at + 40],
                body[at + 40],
            )
            ways = [body[place : place + 43] for place in range(at + 41, at + 41 + 43 * forms, 43)]
            targets.append(
                Target(
                    version,
                    entries,
                    digest,
                    tuple(
                        Form(
                            int.from_bytes(way[1:5]),
                            int.from_bytes(way[5:7]),
                            int.from_bytes(way[7:11]),
                            way[11:],
                        )
                        for way in ways
                    ),
                )
            )
            at += 41 + 43 * forms
        if at != len(body) or not targets:
            raise ListRefusedError(BAD_MANIFEST, "manifest: its length does not follow from its counts")
        return Manifest(int.from_bytes(body[5:9]), made_at, body[17], named, tuple(targets))


def _best(target: Target, held: int) -> Form:
    for form in target.forms:
        if form.base and form.base == held:
            return form
    return next(form for form in target.forms if not form.base)


# --- blocks


def _block(kind: str, held: HeldList, payload: bytes) -> None:
    code, entry_bytes, _, _ = KINDS[kind]
    wanted, form = held.wanted, held.form
    if wanted is None or form is None:
        return
    body = payload[:-DIGEST]
    if len(payload) < 24 + DIGEST or body[:4] != b"ELB1" or _sm3(body) != payload[-DIGEST:]:
        raise ListRefusedError(BAD_BLOCK, "block: damaged")
    base, version = int.from_bytes(body[6:10]), int.from_bytes(body[10:14])
    number, blocks, count, size = (
        int.from_bytes(body[14:16]),
        int.from_bytes(body[16:18]),
        int.from_bytes(body[18:20]),
        int.from_bytes(body[20:24]),
    )
    if body[4:5] != code or (version, base, blocks) != (wanted.version, form.base, form.blocks):
        return  # of another list: late, or early
    if size != len(body) - 24 or size != count * entry_bytes or not 1 <= number <= blocks:
        raise ListRefusedError(BAD_BLOCK, "block: its length does not follow from its count")
    if sum(map(len, held.blocks.values())) > ENTRIES_MAX * entry_bytes:
        raise ListRefusedError(BAD_BLOCK, "block: more than the longest list")
    held.blocks[number] = payload
    if len(held.blocks) == form.blocks:
        _complete(kind, held, wanted, form)


def _complete(kind: str, held: HeldList, wanted: Target, form: Form) -> None:
    """Every block is there: apply them to a copy, and take it only if it is the list that was signed."""
    ordered = [held.blocks[number] for number in range(1, form.blocks + 1)]
    held.blocks.clear()
    if _sm3(b"".join(block[-DIGEST:] for block in ordered)) != form.digest:
        raise ListRefusedError(BAD_LIST, "list: blocks that were not signed")  # all are asked for again
    entries = dict(held.entries) if form.base else {}
    _, size, key_bytes, _ = KINDS[kind]
    for block in ordered:
        body = block[24:-DIGEST]
        for at in range(0, len(body), size):
            key = body[at + 1 : at + 1 + key_bytes]
            if body[at : at + 1] == b"A":
                entries[key] = body[at + 1 + key_bytes : at + size]
            else:
                entries.pop(key, None)
    if len(entries) != wanted.entries or _digest_of(entries) != wanted.digest:
        held.form = _best(wanted, 0)  # what it stood on was not what it should have been: now the full list
        raise ListRefusedError(BAD_LIST, "list: not the one that was signed")
    held.entries, held.version, held.fresh_at = entries, wanted.version, held.made_at
    held.wanted, held.form, held.refusal = None, None, ""


def _digest_of(entries: Mapping[bytes, bytes]) -> bytes:
    return _sm3_of(b"A" + key + entries[key] for key in sorted(entries))


def _sm3(data: bytes) -> bytes:
    return _sm3_of((data,))


def _sm3_of(pieces: Iterable[bytes]) -> bytes:
    digest = Hash(SM3())
    for piece in pieces:
        digest.update(piece)
    return digest.finalize()
