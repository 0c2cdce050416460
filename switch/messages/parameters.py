"""Parameter lists in field 62 (60.3 = 360): packing into blocks, and reading one. Pure. docs/iso8583.md shows the layout."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from switch.domain.errors import FormatError
from switch.messages.administration import read_parameters
from switch.messages.structures import PARAMETERS, STATUS_ONLY
from switch.messages.terminal_1987 import FIELDS

_BLOCK_BYTES: Final = FIELDS[62].size - 1  # less the more flag

Values = Sequence[tuple[str, str]]  # tag, and value as it stands on the line


class ParameterBlock(NamedTuple):
    """One block of a download."""

    more: bool
    values: tuple[tuple[str, str], ...]


def parameter_text(tag: str, value: int) -> str:
    """A number as the line has it. ValueError when it does not fit its tag."""
    size = PARAMETERS[tag].size
    text = f"{value:0{size}d}"
    if value < 0 or len(text) != size:
        raise ValueError(f"parameter {tag} has {size} digits")
    return text


def pack_parameters(values: Iterable[tuple[str, str]], *, bytes_max: int = _BLOCK_BYTES) -> list[bytes]:
    """All blocks, the first is number 0; at least one, though it may say nothing. A value is never cut in two."""
    blocks = [""]
    for tag, value in values:
        if tag in STATUS_ONLY or len(value) != PARAMETERS[tag].size:
            raise ValueError("a parameter that is sent has a value of its own length, and is no status")
        item = tag + value
        if len(item) > bytes_max:
            raise ValueError("a block must hold at least one parameter")
        if len(blocks[-1]) + len(item) > bytes_max:
            blocks.append("")
        blocks[-1] += item
    last = len(blocks) - 1
    return [f"{int(number < last)}{text}".encode("ascii") for number, text in enumerate(blocks)]


def read_parameter_block(raw: bytes) -> ParameterBlock:
    """Read the content of field 62; FormatError names the rule."""
    if raw[:1] not in (b"0", b"1"):
        raise FormatError("more flag is neither 0 nor 1", field="62")
    if not raw.isascii():
        raise FormatError("not ASCII", field="62")
    values = read_parameters(raw[1:].decode("ascii"))
    if any(tag in STATUS_ONLY for tag, _ in values):
        raise FormatError("tags 31 to 36 are never sent to a terminal", field="62")
    return ParameterBlock(raw[:1] == b"1", values)
