"""One line per event, JSON for machines, plain text at a terminal. Masking fails closed.

Values mask themselves (`CardNumber` prints masked). This is the second net: anything under a key that names a secret is
replaced by its length, and any run of 13 digits or more is masked as if it were a PAN (an ASN is a PAN with a zero in front).
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(
    r"pin|track|key|pan\b|password|passphrase|secret|mab|field_?(2|35|36|52|62|64)$", re.IGNORECASE
)
_HARMLESS = frozenset({"key_name", "key_version", "kcv"})
_LONG_NUMBER = re.compile(r"(?<!\d)(\d{6})\d{3,}(\d{4})(?!\d)")


def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that lets nothing secret through.

    >>> dict(mask(None, "", {"event": "card 3133500100000001239", "pin": "1234"}))
    {'event': 'card 313350*********1239', 'pin': '<4 characters>'}
    """
    for name, value in event.items():
        if name not in _HARMLESS and _SECRET.search(name):
            event[name] = f"<{len(value)} characters>" if isinstance(value, str | bytes) else "<hidden>"
        elif isinstance(value, str):
            event[name] = _LONG_NUMBER.sub(lambda m: f"{m[1]}{'*' * (len(m[0]) - 10)}{m[2]}", value)
        elif isinstance(value, bytes):
            event[name] = f"<{len(value)} bytes>"
    return event


class _OfLibraries(logging.Handler):
    """What libraries say through Python's own logging goes the same way: one line, masked."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = structlog.get_logger(record.name)
            log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)


def configure(level: str = "info") -> None:
    """Set up logging for this process: to stderr, so that what a command prints stays clean."""
    plain = sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer()
    if plain:  # its own choice of traceback would show local variables, and in them raw frames and records
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=False),
    ]
    if not plain:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, mask, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _OfLibraries) for handler in root.handlers):
        root.addHandler(_OfLibraries(logging.WARNING))
