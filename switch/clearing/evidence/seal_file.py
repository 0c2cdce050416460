"""The `.seal` file: what a day was, in lines that people and standard tools can read. Pure; the form is in docs/evidence.md.

There is one way to write a seal, and what is read is written again and compared: no second file can mean the same.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Final, NamedTuple, NoReturn

from gmssl_pyx import sm3_hash

from switch.domain.errors import InputRefused, PeerError
from switch.keys import sm2

FIRST_LINE: Final = "citizen-card-seal 1"
TREE: Final = "SM3 RFC6962"
SEAL_BYTES_MAX: Final = 64 << 20  # half a million files
KCV_BYTES: Final = 4
_LINE: Final = re.compile(r"([a-z]+) (.+)")
_FILE: Final = re.compile(r"([0-9A-F]{64}) (0|[1-9][0-9]{0,14}) ([A-Za-z0-9][A-Za-z0-9._-]{0,99})")
_KEY: Final = re.compile(r"(ESK/SM2/v[0-9]{1,3}/local) ([0-9A-F]{8}) ([0-9A-F]{130})")


class SealRefused(InputRefused):
    """A file that is not a seal as this program writes them. line: from 1."""

    def __init__(self, rule: str, line: int) -> None:
        self.line = line
        super().__init__(f"seal, line {line}: {rule}")


class SealedFile(NamedTuple):
    """A file of the day. sm3: of the whole file, upper-case hex."""

    name: str
    sm3: str
    size: int


class SealKey(NamedTuple):
    """The key that signed. public: 04 ‖ x ‖ y."""

    name: str
    public: bytes

    @property
    def kcv(self) -> str:
        """Its check value: the first four bytes of the SM3 of the public half."""
        made: bytes = sm3_hash(self.public)
        return made[:KCV_BYTES].hex().upper()


class Before(NamedTuple):
    """The seal of the last day that was sealed before. sm3: of that whole file, upper-case hex."""

    day: date
    sm3: str


class Seal(NamedTuple):
    """What a seal says. before: None for the first one ever; key and signature: None when nobody signed."""

    institution: str
    day: date
    created: datetime
    leaves: int
    root: bytes
    before: Before | None
    files: tuple[SealedFile, ...]
    key: SealKey | None = None
    signature: bytes | None = None

    def signed_part(self) -> bytes:
        """Everything before the last line: what the signature is over."""
        head = [
            FIRST_LINE,
            f"institution {self.institution}",
            f"day {self.day.isoformat()}",
            f"created {self.created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            f"tree {TREE}",
            f"leaves {self.leaves}",
            f"root {self.root.hex().upper()}",
            "previous none"
            if self.before is None
            else f"previous {self.before.day.isoformat()} {self.before.sm3}",
            f"files {len(self.files)}",
        ]
        rows = [f"file {file.sm3} {file.size} {file.name}" for file in self.files]
        key = (
            "none" if self.key is None else f"{self.key.name} {self.key.kcv} {self.key.public.hex().upper()}"
        )
        return "".join(f"{line}\n" for line in (*head, *rows, f"key {key}")).encode()

    def packed(self) -> bytes:
        """The whole file."""
        signature = "none" if self.signature is None else self.signature.hex().upper()
        return self.signed_part() + f"signature {signature}\n".encode()

    def check_signature(self) -> None:
        """Return None when the signature is the key's over this seal; SealRefused otherwise, also when there is none."""
        last = len(self.files) + 11
        if self.key is None or self.signature is None:
            raise SealRefused("nobody has signed it", last)
        try:
            sm2.verify(self.key.public, self.signed_part(), self.signature)
        except PeerError as error:
            raise SealRefused("the signature is not that key's over this seal", last) from error


def digest_of_seal(packed: bytes) -> str:
    """SM3 of a whole seal, upper-case hex: what the next one names."""
    made: bytes = sm3_hash(packed)
    return made.hex().upper()


def seal_name(institution: str, day: date) -> str:
    """The file's name."""
    return f"{institution}{day:%Y%m%d}.seal"


class _Lines:
    """Line after line, each with the word it must begin with."""

    def __init__(self, text: str) -> None:
        self._lines: Iterator[str] = iter(text.split("\n"))
        self.number = 0

    def fail(self, rule: str) -> NoReturn:
        raise SealRefused(rule, max(self.number, 1))

    def next(self) -> str:
        self.number += 1
        return next(self._lines, "")

    def value(self, word: str, form: str) -> str:
        """What stands behind a word; the whole of it has the form."""
        found = _LINE.fullmatch(self.next())
        if found is None or found[1] != word or re.fullmatch(form, found[2], re.ASCII) is None:
            self.fail(f"must be `{word}` and its value")
        return found[2]

    def day(self, text: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            self.fail("not a date")


def read_seal(packed: bytes) -> Seal:
    """Read a seal; the signature is not checked here. SealRefused names the line that is not as it must be."""
    if len(packed) > SEAL_BYTES_MAX:
        raise SealRefused(f"larger than {SEAL_BYTES_MAX >> 20} MiB", 1)
    try:
        lines = _Lines(packed.decode("ascii"))
    except UnicodeDecodeError as error:
        raise SealRefused("ASCII only", packed[: error.start].count(b"\n") + 1) from None
    if lines.next() != FIRST_LINE:
        lines.fail(f"must be `{FIRST_LINE}`")
    day_form, hash_form = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "[0-9A-F]{64}"
    institution = lines.value("institution", "[0-9]{8}")
    day = lines.day(lines.value("day", day_form))
    created = lines.value("created", rf"{day_form}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z")
    try:
        instant = datetime.fromisoformat(created)
    except ValueError:
        lines.fail("not an instant")
    lines.value("tree", TREE)
    leaves = int(lines.value("leaves", "0|[1-9][0-9]{0,14}"))
    root = bytes.fromhex(lines.value("root", hash_form))
    said = lines.value("previous", f"none|{day_form} {hash_form}")
    before = None if said == "none" else Before(lines.day(said[:10]), said[11:])
    if before is not None and before.day >= day:
        lines.fail("the previous day must be an earlier one")
    files = tuple(_file(lines) for _ in range(int(lines.value("files", "0|[1-9][0-9]{0,5}"))))
    if len({file.name for file in files}) != len(files):
        lines.fail("a file stands twice")
    key = _key(lines)
    text = lines.value("signature", "none|[0-9A-F]{128}")
    signature = None if text == "none" else bytes.fromhex(text)
    if (key is None) != (signature is None):
        lines.fail("a key and a signature, or neither")
    seal = Seal(institution, day, instant, leaves, root, before, files, key, signature)
    if seal.packed() != packed:  # what the forms let through: another end of line, something behind the last
        lines.fail("must end the file, with one line feed")
    return seal


def _file(lines: _Lines) -> SealedFile:
    found = _FILE.fullmatch(lines.value("file", ".+"))
    if found is None:
        lines.fail("must be `file`, an SM3, a size and a name")
    return SealedFile(found[3], found[1], int(found[2]))


def _key(lines: _Lines) -> SealKey | None:
    said = lines.value("key", ".+")
    if said == "none":
        return None
    found = _KEY.fullmatch(said)
    if found is None:
        lines.fail("must be `key none`, or `key` with name, check value and public key")
    key = SealKey(found[1], bytes.fromhex(found[3]))
    if key.kcv != found[2]:
        lines.fail("the check value is not that of the public key")
    return key
