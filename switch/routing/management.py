"""Network management of terminals: sign-on, sign-off, echo, master keys, and what terminals fetch and report."""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from switch.domain.decisions import APPROVED
from switch.domain.errors import FormatError
from switch.domain.transactions import (
    Echo,
    HotListDownload,
    MasterKeyConfirm,
    MasterKeyDownload,
    ParameterDownload,
    Refused,
    SignOff,
    SignOn,
    StatusUpload,
)
from switch.keys.vault import Vault
from switch.messages.answers import Code, Processing
from switch.messages.mapping import read_request
from switch.registry.master_keys import MasterKeyDesk
from switch.registry.sessions import SignOnRefused, sign_off
from switch.registry.terminals import TerminalDirectory
from switch.routing.answering import NOT_SUPPORTED, Answers, Connect, Visit
from switch.routing.downloads import DownloadDesk
from switch.routing.sign_ons import SignOnDesk

log = structlog.get_logger(__name__)

Later = Callable[[Visit, Coroutine[Any, Any, None]], bool]


class Management:
    """Answers what no book has to decide. later: makes a task of what must wait; False when there are too many."""

    def __init__(
        self,
        connect: Connect,
        vault: Vault,
        terminals: TerminalDirectory,
        downloads: DownloadDesk,
        answers: Answers,
        later: Later,
    ) -> None:
        self._connect = connect
        self._terminals = terminals
        self._downloads = downloads
        self._answers = answers
        self._later = later
        self._sign_ons = SignOnDesk(connect, vault, terminals)
        self._master_keys = MasterKeyDesk(vault)

    def manage(self, visit: Visit) -> None:
        """Answer a message of network management, now or in a task."""
        try:
            content = visit.content or read_request(visit.message)
        except FormatError as error:
            log.info("request refused", terminal=visit.envelope.terminal_id, rule=str(error))
            self._answers.reply(visit, self._answers.outcome(Code.FORMAT))
            return
        visit.content = content
        if isinstance(content, Echo):
            self._answers.reply(visit, self._answers.outcome(APPROVED))
        elif isinstance(content, SignOn):
            terminal_no = visit.entry.terminal_no
            if not self._sign_ons.admit(terminal_no):
                self._answers.bare(visit, Code.MALFUNCTION)
            elif not self._later(visit, self._sign_on(visit, content)):
                self._sign_ons.dismiss(terminal_no)
        elif isinstance(content, SignOff):
            self._later(visit, self._sign_off(visit))
        elif isinstance(content, MasterKeyDownload | MasterKeyConfirm):
            self._later(visit, self._master_key(visit, content))
        elif isinstance(content, ParameterDownload | HotListDownload | StatusUpload):
            self._later(visit, self._download(visit, content))
        else:
            answer = content.answer if isinstance(content, Refused) else NOT_SUPPORTED
            self._answers.reply(visit, self._answers.outcome(answer))

    async def _sign_on(self, visit: Visit, content: SignOn) -> None:
        result = await self._sign_ons.take(visit.entry, content)
        if isinstance(result, SignOnRefused):
            log.info("sign-on refused", terminal=visit.entry.terminal_id, rule=result.rule)
            self._answers.reply(visit, self._answers.outcome(result.answer))
            return
        outcome = self._answers.outcome(APPROVED, field62=result.field62)
        self._answers.reply(visit, outcome, batch_no=result.batch_no)

    async def _master_key(self, visit: Visit, content: MasterKeyDownload | MasterKeyConfirm) -> None:
        async with self._connect() as connection:
            if isinstance(content, MasterKeyDownload):
                told = await self._master_keys.download(connection, visit.entry, content.public_key)
            else:
                told = await self._master_keys.confirm(connection, visit.entry, content.kcv)
        if told.rule:
            log.info("master key refused", terminal=visit.entry.terminal_id, rule=told.rule)
        # Its working keys are under the master key that it had before.
        sign_on_next = told.answer == APPROVED and isinstance(content, MasterKeyConfirm)
        self._answers.reply(
            visit, self._answers.outcome(told.answer, field62=told.field62), sign_on_next=sign_on_next
        )

    async def _download(
        self, visit: Visit, content: ParameterDownload | HotListDownload | StatusUpload
    ) -> None:
        told = await self._downloads.take(visit.entry, content)
        if told.rule:
            log.info("download refused", terminal=visit.entry.terminal_id, rule=told.rule)
        visit.entry = told.entry
        self._answers.reply(visit, self._answers.outcome(told.answer, field62=told.field62))

    async def _sign_off(self, visit: Visit) -> None:
        assert visit.keys is not None
        async with self._connect() as connection:
            ended = await sign_off(connection, visit.entry.terminal_no, visit.keys.generation)
        self._terminals.invalidate(visit.entry.terminal_id)
        if not ended:
            self._answers.bare(visit, Code.MAC_WRONG, processing=Processing.SIGN_ON)
            return
        self._answers.reply(visit, self._answers.outcome(APPROVED))
