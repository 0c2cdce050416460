"""The settings file that `cardswitch init` writes: every setting with its meaning, unit and default, each one commented out.

Made from the settings themselves, so it cannot fall behind them.
"""

import json
import os
from collections.abc import Iterator
from datetime import time
from pathlib import Path
from typing import Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from switch.settings import Settings

_HEAD: Final = """\
# Settings of cardswitch. A line that is commented out shows the default; take the leading `#` away to change it.
# Environment variables CARDSWITCH_SECTION__KEY go before this file; `cardswitch config show` says what is in force and why.
# A change takes effect when `cardswitch serve` starts again.
"""
_UNITS: Final = {"_s": "seconds", "_fen": "fen, 1/100 yuan", "_mb": "MiB"}


def settings_text() -> str:
    """The whole file."""
    return _HEAD + "\n" + "\n".join(_lines(Settings)) + "\n"


def write_settings_file(file: Path) -> bool:
    """Write it, mode 600 since it may come to hold secrets, unless something of that name is there. OSError when it cannot be."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(settings_text())
    return True


def _lines(model: type[BaseModel]) -> Iterator[str]:
    sections = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            sections.append((name, type(field.default)))
            continue
        yield f"# {_meaning(name, field)}"
        yield f"#{name} = {_value(field)}"
    for name, section in sections:
        yield f"\n# {section.__doc__}"
        yield f"[{name}]"
        yield from _lines(section)


def _meaning(name: str, field: FieldInfo) -> str:
    unit = next((words for end, words in _UNITS.items() if name.endswith(end)), "")
    meaning = f"{unit}: {field.description}" if unit else str(field.description)
    return meaning if field.default is not None else f"{meaning}. Not set by default"


def _value(field: FieldInfo) -> str:
    """A default as TOML has it; of a setting that has none, what a value looks like."""
    value = field.default
    if value is None:
        return '"TEXT"' if "SecretStr" in str(field.annotation) else '"FILE"'
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = list(value)
    # TOML writes strings, numbers, booleans and lists of them as JSON does.
    return json.dumps(str(value) if isinstance(value, Path | time) else value)
