"""One `cardswitch serve` process: started, watched, measured and killed by tests."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from terminal_sim.pos_client import Line
from tests.helpers.zygote import Forked, fork

READY_S = 300.0
END_S = 300.0
COMMAND_S = 600.0


def cardswitch(
    *arguments: str,
    environment: Mapping[str, str],
    folder: Path | None = None,
    statuses: Collection[int] = (0,),
) -> str:
    """Run a command to its end, in a folder; what it printed. AssertionError, with what it said, when its exit status is another."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = fork(arguments, environment=environment, folder=folder, stdout=out, stderr=err)
        try:
            status = process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        printed, complained = out.read(), err.read()
    said = [line for line in printed.splitlines() if not line.startswith("ok ")]  # of an audit: what failed
    assert status in statuses, f"cardswitch {arguments[0]}: {said[-40:]} {complained[-800:]}"
    return printed


class SwitchProcess:
    """A serving process. Listens when the constructor returns; `line` is where.

    fail_at: a point of `failing.POINTS`. fresh: begins with an interpreter of its own, as those do whose memory is measured: of one that
    is forked most is shared at first.
    """

    def __init__(
        self, environment: Mapping[str, str], log: Path, fail_at: str = "", *, fresh: bool = False
    ) -> None:
        self.log = log
        self._process: Forked | subprocess.Popen[str]
        with log.open("ab") as stream:
            if fresh:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "switch", "serve"],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    text=True,
                )
            else:
                self._process = fork(["serve"], environment=environment, stderr=stream, fail_at=fail_at)
        words = self._first_line().split()
        host, port = words[2].rsplit(":", 1)
        self.line = Line(host, int(port))
        self.http = words[4]

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_S)
        line = self._process.stdout.readline() if readable else ""
        if not line.startswith("ready: "):
            self.end()
            raise AssertionError(f"serve did not start: {self.log.read_text()[-2000:]}")
        return line

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Send SIGTERM, which drains."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self._process.kill()
        self._process.wait(END_S)
        self._close()

    def wait(self) -> int:
        """Exit status, when it has ended."""
        status = self._process.wait(END_S)
        self._close()
        return status

    def end(self) -> None:
        """Stop it, whatever state it is in."""
        if self.alive():
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        if self.alive():
            self._process.kill()
            self._process.wait(END_S)
        self._close()

    def _close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()

    # ------------------------------------------------------------------ what it says and costs

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an HTTP path."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready(self) -> bool:
        """Whether it says that terminals should come."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that carry these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all(want in head for want in wanted):
                total += float(value)
        return total

    def private_kb(self) -> int:
        """Memory of this process, shared pages counted by share (PSS)."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise AssertionError("no Pss in smaps_rollup")

    def logged(self) -> list[dict[str, object]]:
        """What it wrote to its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def process_gone(pid: int) -> bool:
    """Whether a process of that id no longer runs.

    A zombie does not, once the last of its threads is one: until then its sockets are open, and take lines that nobody serves.
    """
    try:
        threads = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return False  # one has just ended
    return all(thread.rsplit(")", 1)[1].split()[0] == "Z" for thread in threads)


def postgres_pids(data_dir: Path) -> list[int]:
    """The PostgreSQL processes whose working directory is the cluster under data_dir."""
    cluster = (data_dir / "postgres/data").resolve()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if b"postgres" in command and (folder / "cwd").readlink() == cluster:
                    found.append(int(folder.name))
    return found


def until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for something outside this process that nobody tells us of. AssertionError when it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:.0f} s"
        time.sleep(0.05)
