"""A real mosquitto 2 for tests (helpers/debian.py gets it): on loopback, with the access list that `cardswitch mqtt acl` prints, ended by its own process id."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from switch.operations.mqtt_access import access_list, password_line
from tests.helpers.debian import program

SWITCH_USER = "switch"
SWITCH_PASSWORD = "the switch's own password"
STARTED_S = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Mosquitto:
    """One broker. users: name to password; the switch is always among them. Use as a context, or start and stop."""

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
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
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

    def start(self) -> "Mosquitto":
        """Listening when this returns."""
        with (self.folder / "log").open("ab") as stream:
            self.process = subprocess.Popen(
                [program("mosquitto", "mosquitto"), "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        deadline = time.monotonic() + STARTED_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            said = (self.folder / "log").read_text()[-800:]
            assert self.process.poll() is None, f"mosquitto did not start: {said}"
            assert time.monotonic() < deadline, "mosquitto did not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def __enter__(self) -> "Mosquitto":
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def client_tls(authority: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """For a client of a broker with TLS."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority))
    if certificate is not None:
        context.load_cert_chain(str(certificate), str(key))
    return context
