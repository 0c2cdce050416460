"""One known-answer vector, and what a checker owes: a computed value for every value that the vector gives."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from switch.domain.errors import SwitchError

Outs = Mapping[str, object]
_LABELS = frozenset({"id", "op", "direction", "note", "source"})  # say something about a vector, not of it


class VectorError(SwitchError):
    """A checker found an inconsistency that no single out value shows. The text names the rule, not the values."""


class Vector(NamedTuple):
    """A vector and the file it stands in (some suites keep shared keys beside their vectors)."""

    ident: str
    body: Mapping[str, Any]
    document: Mapping[str, Any]
    state: dict[Any, Any]  # kept from vector to vector of one file, for suites whose vectors form a sequence

    @property
    def given(self) -> Mapping[str, Any]:
        """The vector's inputs."""
        given = self.body.get("in")
        if not isinstance(given, dict):
            raise VectorError("the vector has no inputs")
        return given

    @property
    def outs(self) -> Mapping[str, Any]:
        """The values that the vector states; all of a vector that is not divided into `in` and `out`."""
        if "in" not in self.body and "out" not in self.body:
            return {name: value for name, value in self.body.items() if name not in _LABELS}
        outs = self.body.get("out")
        if not isinstance(outs, dict):
            raise VectorError("the vector has no out values")
        return {name: value for name, value in outs.items() if name != "note"}

    def octets(self, name: str) -> bytes:
        """An input written as hex."""
        return bytes.fromhex(self.text(name))

    def number(self, name: str) -> int:
        """An input written as hex, as a number."""
        return int(self.text(name), 16)

    def text(self, name: str) -> str:
        """An input that is a string."""
        value = self.given.get(name)
        if not isinstance(value, str):
            raise VectorError(f"input {name} is missing")
        return value


Checker = Callable[[Vector], Outs]


def hexes(value: bytes) -> str:
    """Bytes as the vector files write them."""
    return value.hex().upper()


def differences(stated: Mapping[str, Any], computed: Outs) -> list[str]:
    """Names of stated values that differ or that nothing computes; empty when every one agrees."""
    wrong = [f"nothing computes {name}" for name in stated if name not in computed]
    wrong += [
        f"{name} differs" for name, value in stated.items() if name in computed and computed[name] != value
    ]
    return wrong or ([] if stated else ["the vector states nothing"])
