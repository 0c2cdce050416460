"""Processes beside the first one, without a service: how they are ended."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from switch import workers
from tests.helpers.switch_process import process_gone


async def test_a_deliverer_that_does_not_end_when_told_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, told = tmp_path / "deaf", tmp_path / "pid"
    program.write_text(
        f"#!/bin/sh\ntrap '' TERM\nread url\necho $$ > {told}.tmp\nmv {told}.tmp {told}\nwhile :; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(workers, "DELIVERER_STOP_S", 0.2)
    async with asyncio.timeout(120):  # by itself it never ends
        async with workers.deliverer("postgresql://nowhere", wanted=True):
            while not told.exists():
                await asyncio.sleep(0.01)
            begun_s = time.monotonic()
    assert time.monotonic() - begun_s >= 0.2
    assert process_gone(int(told.read_text()))
