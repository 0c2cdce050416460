"""The topics of docs/mqtt.md: which terminal a topic belongs to, and where its answers go.

T is field 41, percent-encoded, so that a terminal id with a slash, a plus or a blank is one level and no wildcard. A name has
exactly one encoding: another spelling of it would slip past the broker's access list.
"""

from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

PREFIX: Final = "ccs/v1/"
HOT_LISTS: Final = "ccs/v1/list/hot/"
PARAMETERS: Final = "ccs/v1/list/param/"
RESPONSE_TOPIC_MAX: Final = 256
TERMINAL_ID_CHARACTERS: Final = 8


class Channel(Enum):
    """What a terminal speaks on a topic."""

    ISO = "iso"  # frames, TPDU onwards
    PURSE = "purse"  # EPB1 up, EPA1 down


UP: Final = {f"{channel.value}/up": channel for channel in Channel}


class Source(NamedTuple):
    """Where a message came from."""

    terminal_id: str
    channel: Channel


def encoded(terminal_id: str) -> str:
    """T of a terminal, which is also its user name at the broker.

    >>> encoded("33600001"), encoded("A/ +0001")
    ('33600001', 'A%2F%20%2B0001')
    """
    return quote(terminal_id, safe="")


def source_of(topic: str) -> Source | None:
    """Who speaks on a topic, and how; None when it is no topic of a terminal's.

    >>> source_of("ccs/v1/33600001/purse/up").channel
    <Channel.PURSE: 'purse'>
    """
    if not topic.startswith(PREFIX):
        return None
    name, _, rest = topic[len(PREFIX) :].partition("/")
    channel = UP.get(rest)
    if channel is None:
        return None
    try:
        terminal_id = unquote_to_bytes(name).decode("ascii")
    except UnicodeDecodeError:
        return None
    if len(terminal_id) != TERMINAL_ID_CHARACTERS or encoded(terminal_id) != name:
        return None
    return Source(terminal_id, channel)


def down_topic(source: Source, response_topic: str | None = None) -> str:
    """Where the answer goes: the terminal's own wish, if its access list could allow it, else the usual place."""
    own = f"{PREFIX}{encoded(source.terminal_id)}/"
    if (
        response_topic is not None
        and len(response_topic) <= RESPONSE_TOPIC_MAX
        and response_topic.startswith(own)
    ):
        name, _, last = response_topic.removeprefix(own).partition("/")
        # A broker may pass on in a property what it hangs up for in a topic: characters that nobody can print.
        if last == "down" and name and name.isprintable() and not set(name) & set("+#"):
            return response_topic
    return f"{own}{source.channel.value}/down"


def shared_subscriptions(group: str) -> list[str]:
    """What all processes of a group listen to, each message being dealt to one of them.

    A share name for each filter: rumqttd takes all that share one name for one queue, and loses every other message.
    """
    return [f"$share/{group}-{channel.value}/{PREFIX}+/{rest}" for rest, channel in UP.items()]
