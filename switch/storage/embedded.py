"""The way to the database for one command: the external one, the embedded one that runs, or the embedded one of its own.

`serve` runs the embedded server (server.py) for as long as it lives; other commands of the same data directory use that one.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from switch.domain.errors import ConfigurationError
from switch.storage.holding import DataDirectoryHeldError, attached, holder, running_url
from switch.storage.run_as import binaries
from switch.storage.server import EmbeddedPostgres

__all__ = ["DataDirectoryHeldError", "EmbeddedPostgres", "binaries", "holder", "open_database", "running_url"]

USERS_S = 600.0  # a command that runs the server keeps it so long for others that use it
_ATTEMPTS = 5


class _Secret(Protocol):
    def get_secret_value(self) -> str:
        """The text."""


class _DatabaseSection(Protocol):
    @property
    def url(self) -> _Secret:
        """Of an external server; empty for the embedded one."""

    @property
    def embedded_memory_mb(self) -> int:
        """shared_buffers of the embedded server."""


class DatabaseSettings(Protocol):
    """What of the settings this file needs."""

    @property
    def data_dir(self) -> Path:
        """Where the embedded server lies."""

    @property
    def database(self) -> _DatabaseSection:
        """The section `database`."""


@contextlib.contextmanager
def open_database(settings: DatabaseSettings) -> Iterator[str]:
    """The URL of the database of these settings, for as long as the block runs. From the main thread.

    ConfigurationError: there is no data directory, or it is another user's. DependencyError: no server comes up.
    """
    if external := settings.database.url.get_secret_value():
        yield external
        return
    if not settings.data_dir.is_dir():
        raise ConfigurationError(f"data_dir: {settings.data_dir} is not there; run `cardswitch init`")
    with contextlib.ExitStack() as stack:
        yield _running_or_own(settings, stack)


def _running_or_own(settings: DatabaseSettings, stack: contextlib.ExitStack) -> str:
    for attempt in range(1, _ATTEMPTS + 1):
        if (url := stack.enter_context(attached(settings.data_dir))) is not None:
            return url
        memory_mb = settings.database.embedded_memory_mb
        server = EmbeddedPostgres(settings.data_dir, memory_mb=memory_mb, passing=True)
        try:
            url = server.start()
        except DataDirectoryHeldError:  # another command was quicker: use its server
            if attempt == _ATTEMPTS:
                raise
            continue
        stack.callback(server.stop, wait_for_users_s=USERS_S)
        return url
    raise AssertionError("the last attempt returns or raises")
