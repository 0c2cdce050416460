"""Data directories and servers of their own for tests of the embedded server."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from switch.storage.embedded import EmbeddedPostgres
from tests.unit.storage.helpers import PACKAGES, PROGRAM, PROJECT, Serve


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Run the program in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(
            data_dir: Path, *arguments: str, interpreter: tuple[str, ...] = (sys.executable,)
        ) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [*interpreter, str(PROGRAM), str(data_dir), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *PACKAGES])},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a cluster, to be copied: making one takes longer than starting it."""
    folder = tmp_path_factory.mktemp("made")
    with EmbeddedPostgres(folder, memory_mb=16):
        pass
    return folder


@pytest.fixture
def data_dir(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(
        made, tmp_path / "d"
    )  # a longer name and the socket's path would need a short cut, with another URL
