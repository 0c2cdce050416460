"""Rehearsal files: key components in a JSON file, for test cities and foreign clients. Format: docs/keys.md, section 8.

Keys from a file have been seen by people and disks, so only a vault marked for rehearsal takes them. The whole file is
checked before anything changes, and written at once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.domain.errors import InputRefused
from switch.keys.ceremony import Custodian, combine, read_component
from switch.keys.records import (
    KEY_TYPES,
    ROOT_OWNER,
    KeyLevel,
    KeyRecord,
    KeySpec,
    KeyState,
    check_value,
    default_index,
)

FORMAT: Final = "cardswitch-rehearsal-keys/1"
FILE_BYTES_MAX: Final = 1 << 20
KEYS_MAX: Final = 1000
_REQUIRED = {"type", "algorithm", "components"}
_OPTIONAL = {"version", "owner", "level", "index", "state", "kcv"}


class RehearsalKey(NamedTuple):
    """One key of a file, checked by itself. Shows its name only."""

    spec: KeySpec
    clear: bytes
    state: KeyState

    def __repr__(self) -> str:
        return f"RehearsalKey({self.spec.name})"


def read_rehearsal_file(path: Path) -> list[RehearsalKey]:
    """All keys of a file; InputRefused names the entry and the rule, never a value."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InputRefused("rehearsal file is larger than 1 MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        # Without the cause: a parser's error would quote the file.
        raise InputRefused("rehearsal file is not readable as JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputRefused(f'rehearsal file must have "format": "{FORMAT}"')
    entries = document.get("keys")
    if not isinstance(entries, list) or not 1 <= len(entries) <= KEYS_MAX:
        raise InputRefused(f'rehearsal file must have "keys", a list of 1 to {KEYS_MAX}')
    keys = [_read_entry(place, entry) for place, entry in enumerate(entries, start=1)]
    names = [key.spec.name for key in keys]
    if len(set(names)) != len(names):
        raise InputRefused("rehearsal file names a key twice")
    return keys


def _read_entry(place: int, entry: object) -> RehearsalKey:
    try:
        return _read_fields(entry)
    except InputRefused as error:
        raise InputRefused(f"key {place}: {error}") from None


def _read_fields(entry: object) -> RehearsalKey:
    if not isinstance(entry, dict):
        raise InputRefused("must be an object")
    if missing := _REQUIRED - entry.keys():
        raise InputRefused(f"{', '.join(sorted(missing))} missing")
    if entry.keys() - _REQUIRED - _OPTIONAL:  # which is not said: a key may have been put in the wrong place
        raise InputRefused(f"has a field that is none of {', '.join(sorted(_REQUIRED | _OPTIONAL))}")
    spec = _spec(entry)
    if spec.algorithm not in ("3DES", "SM4"):
        raise InputRefused(f"{spec.key_type} keys are drawn by the vault, not entered")
    components = entry["components"]
    if (
        not isinstance(components, list)
        or not all(isinstance(item, str) for item in components)
        or not components
    ):
        raise InputRefused("components must be a list of hex strings")
    clear = combine([read_component(item) for item in components])
    if not any(clear):
        raise InputRefused("the components cancel out")
    stated = entry.get("kcv")
    if stated is not None and stated != check_value(spec.algorithm, clear).hex().upper():
        raise InputRefused("the check value of the result is another")
    try:
        state = KeyState(entry.get("state", KeyState.ACTIVE.value))
    except ValueError:
        raise InputRefused("state must be active, pre-active or verify-only") from None
    if state is KeyState.RETIRED:
        raise InputRefused("state must be active, pre-active or verify-only")
    return RehearsalKey(spec, clear, state)


def _spec(entry: dict[str, Any]) -> KeySpec:
    key_type, algorithm = str(entry["type"]), str(entry["algorithm"])
    version, index = entry.get("version", 1), entry.get("index", default_index(algorithm))
    if type(version) is not int or type(index) is not int:
        raise InputRefused("version and index must be whole numbers")
    rule = KEY_TYPES.get(key_type)
    default_level = rule.levels[0].value if rule else KeyLevel.ROOT.value
    try:
        level = KeyLevel(entry.get("level", default_level))
    except ValueError:
        raise InputRefused(f"level must be one of {', '.join(level.value for level in KeyLevel)}") from None
    owner = entry.get("owner", ROOT_OWNER if level is KeyLevel.ROOT else "")
    return KeySpec(key_type, algorithm, version, str(owner), level, index).checked()


def install_rehearsal_keys(
    custodian: Custodian, keys: Sequence[RehearsalKey], operators: Sequence[str]
) -> list[tuple[KeyRecord, bool]]:
    """Install all keys of a file at once. Returns each record, and whether it is new.

    A key that is there already with the same check value stays as it is, so that a file can be read twice;
    another key of the same name refuses the whole file.
    """
    return custodian.install_many([(key.spec, key.clear, key.state) for key in keys], operators)
