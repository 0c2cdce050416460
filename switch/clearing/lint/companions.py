"""What lies beside a file: `NAME.ok`, which says that it is complete, and `NAME.sig`, its signature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from switch.clearing.lint.faults import Findings
from switch.clearing.lint.sm2 import verify

COMPANION_BYTES_MAX: Final = 1_024


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return stream.read(COMPANION_BYTES_MAX + 1)
    except FileNotFoundError:
        return None


def check_companions(path: Path, sm3: str, keys: Sequence[bytes], findings: Findings) -> None:
    """Compare them with the file. Neither has to be there, but a signature where a key was given to check it by."""
    mark = _read(path.with_name(f"{path.name}.ok"))
    if mark is None:
        findings.notes.append("no .ok beside it")
    elif mark.split() != [sm3.encode(), path.name.encode()]:
        said = mark.split()
        if len(said) == 2 and said[1] == path.name.encode() and said[0].upper() != sm3.encode():
            rule = "the digest in it is not the file's"
        else:
            rule = "not a digest and a name"
        findings.add(
            "ok",
            f"{path.name}.ok: {rule}",
            "the SM3 of the whole file in upper-case hex, two spaces, its name",
        )
    signature = _read(path.with_name(f"{path.name}.sig"))
    if signature is None:
        if keys:
            findings.add("signature", "no .sig beside it", "a key was given to check one by")
    elif not keys:
        findings.notes.append("a .sig is beside it and was not checked: give the public key with --key")
    elif any(verify(key, bytes.fromhex(sm3), signature) for key in keys):
        findings.notes.append("the signature is right")
    else:
        findings.add(
            "signature", "the signature is wrong", "made by one of the given keys over the file as it is"
        )
