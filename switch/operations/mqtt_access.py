"""Who may do what at the broker: an access list and a password file in the form that mosquitto 2 reads.

A terminal's user name is its T (docs/mqtt.md), by password or by the common name of its certificate. The list then needs no line per
terminal: mosquitto puts the user name in.
"""

import base64
import hashlib
import os
from typing import Final

from switch.transports.mqtt_topics import PREFIX, Channel

ITERATIONS: Final = 101  # as mosquitto_passwd; passwords are random, so they need no slow hash
SALT_BYTES: Final = 12
KEY_BYTES: Final = 64
PASSWORD_BYTES: Final = 18


def access_list(switch_user: str) -> str:
    """The text of an acl_file. ValueError: no name that mosquitto could read."""
    if not switch_user or not switch_user.isprintable() or " " in switch_user:
        raise ValueError("a user name has printable characters and no blanks")
    lines = [
        "# Access list of the citizen card switch for mosquitto 2. A terminal's user name is its T.",
        "# It publishes under its own T only, and reads what goes down to it and the lists.",
    ]
    lines += [f"pattern write {PREFIX}%u/{channel.value}/up" for channel in Channel]
    lines += [f"pattern read {PREFIX}%u/+/down", f"pattern read {PREFIX}list/#"]
    lines += ["", "# The switch.", f"user {switch_user}"]
    lines += [f"topic read {PREFIX}+/{channel.value}/up" for channel in Channel]
    lines += [f"topic write {PREFIX}+/+/down", f"topic write {PREFIX}list/#", ""]
    return "\n".join(lines)


def password_line(user: str, password: str, salt: bytes | None = None) -> str:
    """A line of a password_file: PBKDF2 with SHA-512, as mosquitto_passwd writes it."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    key = hashlib.pbkdf2_hmac("sha512", password.encode("utf-8"), salt, ITERATIONS, KEY_BYTES)
    parts = (base64.b64encode(part).decode("ascii") for part in (salt, key))
    return f"{user}:$7${ITERATIONS}${'$'.join(parts)}"


def new_password() -> str:
    """Random, 24 characters."""
    return base64.urlsafe_b64encode(os.urandom(PASSWORD_BYTES)).decode("ascii")
