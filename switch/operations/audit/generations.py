"""Files that were sent again, and signatures: every byte on disk against the file of the day. Hot lists as files."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import new as new_digest
from itertools import zip_longest
from pathlib import Path
from typing import Any

from switch.clearing.lint.sm2 import verify

_SEQUENCE = slice(29, 32)  # in the header


def on_their_way(
    folder: Path, again: Iterable[tuple[Any, ...]], signed: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[str, str, str, str]]:
    """Faults of a day's files that were sent again, and of signatures: key, expected, found, table.

    again: name, original, digest and size; signed: name, public key and signature.
    """
    for name, original, sm3, size in again:
        if fault := _generation_fault(folder, name, original, sm3, size):
            yield name, f"{original} under its own number", fault, "clearing_resend"
    for name, public, der in signed:
        if fault := _signature_fault(folder, name, bytes(public), bytes(der)):
            yield name, "a signature of the file, beside it", fault, "file_signature"


def listed_lines(rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """Lines of BF and BI: version, base and date of the list, then part, card, level and date of each line."""
    number = 0
    for _, base, today, part, asn, level, day in rows:
        if base is not None and not number:
            number = 1
            yield f"D{number:08d}V{base:020d}00{today}"
        if part is not None:
            number += 1
            yield f"D{number:08d}{'D' if part == 1 else 'A'}{asn}{level:02d}{day}"


def _generation_fault(folder: Path, name: str, original: str, sm3: str, size: int) -> str:
    """What is wrong with a file that was sent again; empty when nothing is."""
    body, whole, length = new_digest("sm3"), new_digest("sm3"), 0
    try:
        with (folder / original).open("rb") as first, (folder / name).open("rb") as second:
            for number, (old, new) in enumerate(zip_longest(first, second, fillvalue=b""), 1):
                want = old
                if number == 1:
                    want = old[: _SEQUENCE.start] + name[26:].encode() + old[_SEQUENCE.stop :]
                elif old[:1] == b"T":
                    want = old[:26] + body.hexdigest().upper().encode() + b"\r\n"
                if new != want:
                    return f"line {number} is another"
                body.update(new)
                whole.update(new)
                length += len(new)
        mark = (folder / f"{name}.ok").read_text(encoding="ascii", errors="replace").split()
    except OSError as error:
        return error.strerror or type(error).__name__
    if (whole.hexdigest().upper(), length) != (sm3, size):
        return f"SM3 {whole.hexdigest().upper()}, {length} bytes; stored {sm3}, {size}"
    return "" if mark == [sm3, name] else f"{name}.ok says something else"


def _signature_fault(folder: Path, name: str, public: bytes, der: bytes) -> str:
    """What is wrong with a signature; empty when nothing is."""
    digest = new_digest("sm3")
    try:
        with (folder / name).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        beside = (folder / f"{name}.sig").read_bytes()
    except OSError as error:
        return error.strerror or type(error).__name__
    if beside != der:
        return "another one lies there"
    return "" if verify(public, digest.digest(), der) else "one of other bytes, or by another key"
