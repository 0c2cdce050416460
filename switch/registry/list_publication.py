"""Lists to topics 名單發布: blocks first, then the manifest that puts them in force, then what nobody needs any more is emptied.

A retained message is only the last one said on a topic, and the broker may have lost it, so a process says everything again when it
begins (`forget`). What it says is the same to the last byte: blocks follow from the version, and manifests are kept as they were signed.
Memory is bounded by a block: a list is read through a cursor of the server.
"""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from cryptography.hazmat.primitives.hashes import SM3, Hash
from psycopg import AsyncConnection

from switch.domain.errors import DependencyError
from switch.domain.publishing import Publisher
from switch.keys.records import KeyMissingError, KeyState
from switch.keys.vault import Vault
from switch.messages.list_blocks import (
    BLOCK_ENTRIES_MAX,
    DIGEST_BYTES,
    LAYOUTS,
    Form,
    Manifest,
    Target,
    block_topic,
    blocks_of,
    form_digest,
    manifest_topic,
    pack_block,
    pack_manifest,
)
from switch.registry.list_rollout import KINDS, Newest
from switch.registry.list_rollout import SQL as LISTS
from switch.storage.sql import load

log = structlog.get_logger(__name__)
_SQL = load("switch.registry", "list_publication.sql")

Connection = AsyncConnection[Any]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]

INCREMENTS_MAX: Final = 3  # of a version: from the three before it
REFRESH: Final = timedelta(
    hours=12
)  # a manifest is signed anew, so that terminals know their list is still in force
EVERY_S: Final = 10.0
SIGNATURE_BYTES: Final = 64
_LOCK: Final = 0x6C697374


class ListSigner(NamedTuple):
    """The key that signs lists: the active one of its type in the vault."""

    vault: Vault

    def current(self) -> tuple[str, int]:
        """Name and version; KeyMissingError when no ceremony has made one."""
        for record in self.vault.records():
            if record.key_type == "LSK" and record.state is KeyState.ACTIVE:
                return record.name, record.version
        raise KeyMissingError("there is no active list-signing key (LSK); see docs/keys.md, section 10")


class _Made(NamedTuple):
    """A form as it went out. content: of the full list, SM3 over its entries."""

    form: Form
    content: bytes | None


class ListPublication:
    """What of the lists is out on the broker, for this process."""

    def __init__(self, signer: ListSigner, publisher: Publisher) -> None:
        self._signer = signer
        self._publisher = publisher
        self._out: dict[tuple[str, int, int], _Made] = {}
        self._manifests: dict[str, int] = {}  # serial that is out

    def forget(self) -> None:
        """The broker may have lost everything: say it again."""
        self._out.clear()
        self._manifests.clear()

    async def publish_due(self, connection: Connection) -> int:
        """Publish what must be out and is not; how many manifests were published. connection: in autocommit mode, its own meanwhile."""
        done = 0
        for number, kind in enumerate(KINDS):
            lock = {"lock": _LOCK, "number": number}
            if not await _value(connection, "lock_kind", lock):
                continue
            try:
                done += await self._publish_kind(connection, kind)
            finally:
                await connection.execute(_SQL["unlock_kind"], lock)
        return done

    async def _publish_kind(self, connection: Connection, kind: str) -> int:
        cursor = await connection.execute(LISTS["newest"], {"kind": kind})
        row = await cursor.fetchone()
        if row is None:
            return 0
        newest = Newest(*row)
        versions = [newest.version]
        if newest.unfinished:
            assert newest.previous is not None
            versions.append(newest.previous)
        targets = tuple([await self._target(connection, kind, version) for version in versions])
        done = await self._manifest(connection, kind, newest, targets)
        await self._withdraw(connection, kind, versions)
        return done

    # --- blocks

    async def _target(self, connection: Connection, kind: str, version: int) -> Target:
        full = await self._form(connection, kind, version, 0)
        assert full is not None
        assert full.content is not None
        forms = [full.form]
        values = {"kind": kind, "version": version, "most": INCREMENTS_MAX}
        cursor = await connection.execute(_SQL["bases"], values)
        for (base,) in await cursor.fetchall():
            made = await self._form(connection, kind, version, base, most=full.form.entries)
            if made is not None:
                forms.append(made.form)
        return Target(version, full.form.entries, full.content, tuple(forms))

    async def _form(
        self, connection: Connection, kind: str, version: int, base: int, *, most: int = 0
    ) -> _Made | None:
        """A form that is out. None for an increment of more than `most` entries, which nobody would fetch."""
        at = (kind, version, base)
        if at not in self._out:
            values = {"kind": kind, "version": version, "base": base}
            entries = await _value(connection, "count_increment" if base else "count_full", values)
            if base and entries > most:
                return None
            made = await self._send_blocks(connection, kind, version, base, entries)
            await self._note_form(connection, values, made)
            self._out[at] = made
        return self._out[at]

    async def _send_blocks(
        self, connection: Connection, kind: str, version: int, base: int, entries: int
    ) -> _Made:
        layout = LAYOUTS[kind]
        values = {
            "kind": kind,
            "version": version,
            "base": base,
            "size": BLOCK_ENTRIES_MAX,
            "said_bytes": layout.entry_bytes - layout.key_bytes - 1,
        }
        blocks, sent, digests, content = blocks_of(entries), 0, [], Hash(SM3())

        async def send(packed: bytes) -> None:
            nonlocal sent
            sent += 1
            payload = pack_block(kind, base, version, sent, blocks, packed)
            digests.append(payload[-DIGEST_BYTES:])
            content.update(packed)
            await self._publisher.publish(block_topic(kind, version, base, sent), payload, retain=True)

        async with connection.transaction(), connection.cursor("list_blocks", binary=True) as cursor:
            cursor.itersize = 1
            await cursor.execute(_SQL["increment_blocks" if base else "full_blocks"], values)
            async for (packed,) in cursor:
                await send(packed)
        if not sent:
            await send(b"")
        assert sent == blocks, "a list has as many entries as were counted"
        form = Form(base, blocks, entries, form_digest(digests))
        return _Made(form, None if base else content.finalize())

    async def _note_form(self, connection: Connection, values: dict[str, Any], made: _Made) -> None:
        cursor = await connection.execute(_SQL["form"], values)
        row = await cursor.fetchone()
        said = (made.form.blocks, made.form.entries, made.form.digest, made.content)
        # A version never changes. If its bytes do, terminals that hold it would be told another digest: do not sign that.
        assert row is None or tuple(row) == said, "a list form is the same whenever it is made"
        names = ("blocks", "entries", "digest", "content")
        await connection.execute(_SQL["add_form"], values | dict(zip(names, said, strict=True)))

    async def _withdraw(self, connection: Connection, kind: str, versions: list[int]) -> None:
        cursor = await connection.execute(_SQL["not_needed"], {"kind": kind, "versions": versions})
        for version, base, blocks in await cursor.fetchall():
            for number in range(1, blocks + 1):
                await self._publisher.publish(block_topic(kind, version, base, number), b"", retain=True)
            await connection.execute(_SQL["withdraw"], {"kind": kind, "version": version, "base": base})
            self._out.pop((kind, version, base), None)

    # --- manifests

    async def _manifest(
        self, connection: Connection, kind: str, newest: Newest, targets: tuple[Target, ...]
    ) -> int:
        named: tuple[str, ...] = ()
        percent = 100
        if len(targets) > 1:
            percent = 0
            if newest.state == "RUNNING":
                assert newest.percent is not None
                percent = newest.percent
                values = {"rollout_no": newest.rollout_no, "stage": newest.stage}
                cursor = await connection.execute(_SQL["named"], values)
                named = tuple(terminal_id for (terminal_id,) in await cursor.fetchall())
        key_name, key_version = self._signer.current()
        cursor = await connection.execute(_SQL["last_manifest"], {"kind": kind})
        row = await cursor.fetchone()
        serial, payload = 0, b""
        if row is not None:
            serial, made_at, payload, now = row
            wanted = Manifest(kind, serial, made_at, key_version, percent, named, targets)
            if now - made_at < REFRESH and pack_manifest(wanted) == payload[:-SIGNATURE_BYTES]:
                if self._manifests.get(kind) == serial:
                    return 0
                await self._send_manifest(kind, serial, payload)
                return 1
        made = Manifest(kind, serial + 1, await _now(connection), key_version, percent, named, targets)
        body = pack_manifest(made)
        payload = body + self._signer.vault.sign(key_name, body)
        row_values = {
            "kind": kind,
            "serial": made.serial,
            "made_at": made.made_at,
            "version": targets[0].version,
            "previous": targets[1].version if len(targets) > 1 else None,
            "percent": percent,
            "named": len(named),
            "payload": payload,
        }
        # Written down first: after a crash the same bytes go out, and no serial stands for two manifests.
        await connection.execute(_SQL["add_manifest"], row_values)
        await self._send_manifest(kind, made.serial, payload)
        return 1

    async def _send_manifest(self, kind: str, serial: int, payload: bytes) -> None:
        await self._publisher.publish(manifest_topic(kind), payload, retain=True)
        self._manifests[kind] = serial


class ListChanges:
    """Hears of changes in the registry, so that a list goes out when it is published and not at the next look."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notice(self, payload: str) -> None:
        """Whoever moves a roll-out says `all`; other notices are about cards and terminals."""
        if payload == "all":
            self._changed.set()

    def distrust(self) -> None:
        """Nothing is kept here, and a look is due every few seconds anyway."""

    def trust(self) -> None:
        """Something may have been missed."""
        self._changed.set()

    async def wait(self, within_s: float) -> None:
        """Until there was a change since the last wait, or that time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        self._changed.clear()


async def keep_publishing(
    connect: Connect,
    publication: ListPublication,
    line: Callable[[], object] = lambda: None,
    *,
    changes: ListChanges | None = None,
    every_s: float = EVERY_S,
) -> None:
    """Publish what is due until cancelled. What fails is logged and tried again.

    line: which line to the broker is open. Another one than before may lead to a broker that has lost everything.
    """
    changes = changes or ListChanges()
    known: object = None
    trouble = ""
    while True:
        if (now := line()) != known:
            known = now
            publication.forget()
        try:
            async with connect() as connection:
                await publication.publish_due(connection)
            trouble = ""
        except (psycopg.Error, DependencyError, KeyMissingError) as error:
            if trouble != type(error).__name__:  # said once, however long it lasts
                trouble = type(error).__name__
                log.warning("lists are not published; tried again and again", error=trouble, why=str(error))
            publication.forget()  # what the broker has is not known any more
        except AssertionError:  # our own fault; the lists that are out stay in force
            log.exception("lists cannot be published")
        await changes.wait(every_s)


async def _value(connection: Connection, name: str, values: dict[str, Any]) -> Any:
    cursor = await connection.execute(_SQL[name], values)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def _now(connection: Connection) -> datetime:
    """To the second, as terminals are told it."""
    now: datetime = await _value(connection, "clock", {})
    return now.replace(microsecond=0)
