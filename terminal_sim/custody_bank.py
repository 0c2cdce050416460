"""A custody bank: takes payment orders (pain.001.001.09), moves money as a script says, and tells of it (camt.054.001.08, camt.053.001.08).

Its reader and its writer are its own and share nothing with the switch's. A script says what becomes of which payment; everything else is
paid. `cardswitch sim bank` runs it from files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

ORDER: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
PAPER: Final = "urn:iso:std:iso:20022:tech:xsd:camt.{}.001.08"


class Fate(Enum):
    """What becomes of a payment."""

    PAID = "paid"
    RETURNED = "returned"  # goes out and comes back
    LESS = "less"  # one fen less than ordered
    MORE = "more"
    TWICE = "twice"  # the bank pays it twice
    SILENT = "silent"  # nothing happens


class OrderRefused(Exception):
    """The bank does not take an order: its form, its sums, or a message id that it has had."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One instruction of an order."""

    end_to_end_id: str
    fen: int
    name: str
    account: str
    agent: str


@dataclass(slots=True)
class Entry:
    """One movement of the account, told in a notification and in a statement."""

    bank_ref: str
    end_to_end_id: str
    fen: int
    is_credit: bool
    remittance: str = ""
    reason: str = ""


@dataclass(slots=True)
class CustodyBank:
    """One account of one customer. with_refs: whether papers carry the bank's own reference of a movement. name: makes its ids its own."""

    account: str
    balance_fen: int = 0
    with_refs: bool = True
    name: str = ""
    entries: list[Entry] = field(default_factory=list)
    told: int = 0  # entries that a notification has told
    stated: int = 0  # and a statement
    stated_fen: int = 0
    papers: int = 0
    messages: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stated_fen = self.balance_fen

    def order(self, data: bytes, script: Mapping[str, Fate] | None = None) -> list[Payment]:
        """Take an order and carry it out. Raises OrderRefused."""
        message_id, payments = read_order(data, self.account)
        if message_id in self.messages:
            raise OrderRefused(f"message {message_id} was taken before")
        self.messages.add(message_id)
        for payment in payments:
            self._carry_out(payment, (script or {}).get(payment.end_to_end_id, Fate.PAID))
        return payments

    def _carry_out(self, payment: Payment, fate: Fate) -> None:
        if fate is Fate.SILENT:
            return
        fen = payment.fen + {Fate.LESS: -1, Fate.MORE: 1}.get(fate, 0)
        self.move(payment.end_to_end_id, -fen)
        if fate is Fate.TWICE:
            self.move(payment.end_to_end_id, -fen)
        if fate is Fate.RETURNED:
            self.move(payment.end_to_end_id, fen, reason="AC04")

    def move(self, end_to_end_id: str, fen: int, remittance: str = "", reason: str = "") -> None:
        """Money in (above zero) or out."""
        self.balance_fen += fen
        ref = f"B{self.name}{len(self.entries) + 1:09d}" if self.with_refs else ""
        self.entries.append(Entry(ref, end_to_end_id, abs(fen), fen > 0, remittance, reason))

    def notification(self, now: datetime) -> bytes:
        """A camt.054 of what was not told yet."""
        new, self.told = self.entries[self.told :], len(self.entries)
        return self._paper("054", "BkToCstmrDbtCdtNtfctn", "Ntfctn", now, "", new)

    def statement(self, now: datetime) -> bytes:
        """A camt.053 of what happened since the statement before, with balances."""
        new, self.stated = self.entries[self.stated :], len(self.entries)
        balances = _balance("OPBD", self.stated_fen, now.date()) + _balance(
            "CLBD", self.balance_fen, now.date()
        )
        self.stated_fen = self.balance_fen
        return self._paper("053", "BkToCstmrStmt", "Stmt", now, balances, new)

    def _paper(
        self, kind: str, message: str, statement: str, now: datetime, balances: str, entries: list[Entry]
    ) -> bytes:
        self.papers += 1
        at = f"<CreDtTm>{now.isoformat(timespec='seconds')}</CreDtTm>"
        paper_id = f"{statement.upper()}-{self.name}{self.papers:06d}"
        body = "".join(_entry(entry, now.date()) for entry in entries)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<Document xmlns="{PAPER.format(kind)}"><{message}><GrpHdr><MsgId>M{paper_id}</MsgId>{at}</GrpHdr>'
            f"<{statement}><Id>{paper_id}</Id>{at}<Acct><Id><Othr><Id>{escape(self.account)}</Id></Othr></Id><Ccy>CNY</Ccy></Acct>"
            f"{balances}{body}</{statement}></{message}></Document>\n"
        ).encode()


def _yuan(fen: int) -> str:
    return f"{Decimal(fen) / 100:.2f}"


def _balance(code: str, fen: int, day: date) -> str:
    word = "DBIT" if fen < 0 else "CRDT"
    return (
        f'<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy="CNY">{_yuan(abs(fen))}</Amt>'
        f"<CdtDbtInd>{word}</CdtDbtInd><Dt><Dt>{day}</Dt></Dt></Bal>"
    )


def _entry(entry: Entry, day: date) -> str:
    word = "CRDT" if entry.is_credit else "DBIT"
    amount = f'<Amt Ccy="CNY">{_yuan(entry.fen)}</Amt><CdtDbtInd>{word}</CdtDbtInd>'
    ref = f"<AcctSvcrRef>{entry.bank_ref}</AcctSvcrRef>" if entry.bank_ref else ""
    remittance = f"<RmtInf><Ustrd>{escape(entry.remittance)}</Ustrd></RmtInf>" if entry.remittance else ""
    back = f"<RtrInf><Rsn><Cd>{entry.reason}</Cd></Rsn></RtrInf>" if entry.reason else ""
    reference = escape(entry.end_to_end_id or "NOTPROVIDED")
    return (
        f"<Ntry>{amount}<Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>{day}</Dt></BookgDt><ValDt><Dt>{day}</Dt></ValDt>{ref}"
        "<BkTxCd><Prtry><Cd>TRF</Cd></Prtry></BkTxCd><NtryDtls><TxDtls>"
        f"<Refs><EndToEndId>{reference}</EndToEndId></Refs>{amount}{remittance}{back}</TxDtls></NtryDtls></Ntry>\n"
    )


class _Leaves:
    """An XML file as its leaves, in order: path below the root, and text. Amounts carry their currency."""

    def __init__(self, data: bytes) -> None:
        self.found: list[tuple[str, str]] = []
        self._path: list[str] = []
        self._text = ""
        parser = expat.ParserCreate("UTF-8", "|")
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._add
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise OrderRefused(f"not XML: {error}") from None

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.partition("|")
        if namespace != ORDER:
            raise OrderRefused("not a pain.001.001.09")
        self._path.append(local)
        self._text = ""
        if local == "InstdAmt" and attributes != {"Ccy": "CNY"}:
            raise OrderRefused("amounts in CNY")

    def _add(self, text: str) -> None:
        self._text += text

    def _end(self, _name: str) -> None:
        self.found.append(("/".join(self._path[2:]), self._text.strip()))
        self._path.pop()
        self._text = ""


_TRANSFER: Final = "PmtInf/CdtTrfTxInf"


def _fen(text: str) -> int:
    fen = Decimal(text) * 100
    if fen != int(fen) or fen <= 0:
        raise OrderRefused("an amount is not whole fen above zero")
    return int(fen)


def read_order(data: bytes, account: str) -> tuple[str, list[Payment]]:
    """Message id and payments of an order on this account. Raises OrderRefused when its sums do not hold."""
    head: dict[str, str] = {}
    one: dict[str, str] = {}
    payments: list[Payment] = []
    for path, text in _Leaves(data).found:
        if path == _TRANSFER:
            agent = one.get("CdtrAgt/FinInstnId/BICFI") or one["CdtrAgt/FinInstnId/ClrSysMmbId/MmbId"]
            payments.append(
                Payment(
                    one["PmtId/EndToEndId"],
                    _fen(one["Amt/InstdAmt"]),
                    one["Cdtr/Nm"],
                    one["CdtrAcct/Id/Othr/Id"],
                    agent,
                )
            )
            one = {}
        elif path.startswith(f"{_TRANSFER}/"):
            one[path.removeprefix(f"{_TRANSFER}/")] = text
        else:
            head[path] = text
    for level in ("GrpHdr", "PmtInf"):
        if int(head[f"{level}/NbOfTxs"]) != len(payments):
            raise OrderRefused(f"{level}: another number of transfers")
        if _fen(head[f"{level}/CtrlSum"]) != sum(payment.fen for payment in payments):
            raise OrderRefused(f"{level}: another control sum")
    if head["PmtInf/DbtrAcct/Id/Othr/Id"] != account:
        raise OrderRefused("not an order on this account")
    if len({payment.end_to_end_id for payment in payments}) != len(payments):
        raise OrderRefused("an end-to-end id stands twice")
    return head["GrpHdr/MsgId"], payments
