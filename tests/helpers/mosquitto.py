"""A real mosquitto 2 for tests (helpers/debian.py gets it): on loopback, with the access list that `cardswitch mqtt acl` prints, ended by its own process id."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from switch.operations.mqtt_access import access_list, password_line
from tests.helpers.debian import program
from tests.helpers.local_server import LocalServer

SWITCH_USER = "switch"
SWITCH_PASSWORD = "the switch's own password"


class Mosquitto(LocalServer):
    """One broker. users: name to password; the switch is always among them."""

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, str] | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        authority: Path | None = None,
        queued_max: int = 10_000,
    ) -> None:
        """users None: nobody has a password. authority: clients show a certificate, whose CN is their user name."""
        super().__init__(folder)
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if users is None and authority is None else 'false'}",
            "set_tcp_nodelay true",
            "max_inflight_messages 1000",
            f"max_queued_messages {queued_max}",
            "persistence false",
            "log_type error",
            "log_type warning",
            "log_dest stderr",
            "user root"
            if os.geteuid() == 0
            else "",  # else it would drop to a user who may not read the folder
        ]
        if users is not None or authority is not None:
            (folder / "acl").write_text(access_list(SWITCH_USER), encoding="utf-8")
            lines.append(f"acl_file {folder / 'acl'}")
        if users is not None:
            named = {SWITCH_USER: SWITCH_PASSWORD} | dict(users)
            text = "".join(password_line(name, password) + "\n" for name, password in named.items())
            (folder / "passwords").write_text(text, encoding="utf-8")
            lines.append(f"password_file {folder / 'passwords'}")
        if certificate is not None:
            lines += [f"certfile {certificate}", f"keyfile {key}"]
        if authority is not None:
            lines += [f"cafile {authority}", "require_certificate true", "use_identity_as_username true"]
        self.config = folder / "mosquitto.conf"
        self.config.write_text("\n".join([*lines, ""]), encoding="utf-8")
        for name in ("acl", "passwords"):
            if (folder / name).exists():
                (folder / name).chmod(0o600)

    def command(self) -> list[str]:
        return [program("mosquitto", "mosquitto"), "-c", str(self.config)]


def client_tls(authority: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """For a client of a broker with TLS."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority))
    if certificate is not None:
        context.load_cert_chain(str(certificate), str(key))
    return context
