"""Connections as this project wants them: autocommit, so that every transaction is begun and ended by name."""

from typing import Any

import psycopg
from psycopg import AsyncConnection

APPLICATION = "cardswitch"


async def connect(url: str) -> AsyncConnection[Any]:
    """Open a connection. psycopg.OperationalError when there is no database to talk to."""
    return await AsyncConnection.connect(
        url,
        autocommit=True,
        application_name=APPLICATION,
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
    )


def connect_now(url: str) -> psycopg.Connection[Any]:
    """The same, for commands that need no event loop."""
    return psycopg.connect(url, autocommit=True, application_name=APPLICATION, connect_timeout=5)
