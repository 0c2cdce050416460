"""Exceptions say whose fault it is and what happens now; a decline is an answer and never one of these.

Texts name the field and the rule. They never hold a value that came from outside: it may be a PAN or a key.
"""


class SwitchError(Exception):
    """Anything this project raises on purpose."""


class PeerError(SwitchError):
    """The sender's fault. It is told (30 or A0) and counted; its session lives."""


class FormatError(PeerError):
    """A message whose fields cannot be read, or whose content breaks a rule of form.

    field: what is wrong, as the references name it ("4", "62", "DF31", "MTI"); empty when no field is to blame.
    offset: index of the offending byte in the frame or record, if known.
    """

    def __init__(self, rule: str, *, field: str = "", offset: int | None = None) -> None:
        self.rule = rule
        self.field = field
        self.offset = offset
        where = f"field {field}: " if field else ""
        at = f" (byte {offset})" if offset is not None else ""
        super().__init__(f"{where}{rule}{at}")


class MacMismatch(PeerError):
    """A message authentication code is wrong under every key that may be used."""


class FramingError(SwitchError):
    """The byte stream has lost its place; the only cure is to close the connection."""


class DependencyError(SwitchError):
    """The world's fault (database, host). The terminal is told 91 or 96; policy decides about retries."""


class DatabaseLost(DependencyError):
    """The database went away; whether the last commit happened must be looked up by key."""


class Overloaded(DependencyError):
    """A bounded queue is full; nothing was taken in."""


class InputRefused(SwitchError):
    """A file or command of an operator breaks a rule. Nothing was changed."""


class ConfigurationError(SwitchError):
    """A setting is missing, unknown or contradicts another."""
