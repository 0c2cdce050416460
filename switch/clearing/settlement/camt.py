"""Statements (camt.053.001.08) and notifications (camt.054.001.08) of the custody bank, read as a stream. No I/O: bytes in, events out.

A file from outside is a stranger: a document type is refused as soon as it begins, so no entity is ever declared; the encoding is
UTF-8, whatever the file says of itself; every name must be of the schema's namespace; text, depth, single tokens and the number of entries
have bounds. Memory is one entry, whatever the size. What the switch does not need is passed over.
"""

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Final, NamedTuple
from xml.parsers import expat

from switch.domain.errors import InputRefused

NAMESPACES: Final = {
    "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08": ("camt.053", "BkToCstmrStmt", "Stmt"),
    "urn:iso:std:iso:20022:tech:xsd:camt.054.001.08": ("camt.054", "BkToCstmrDbtCdtNtfctn", "Ntfctn"),
}
DEPTH_MAX: Final = 40
TEXT_MAX: Final = 2_048  # characters of one element
TOKEN_BYTES_MAX: Final = 1 << 20  # a start tag or comment that does not end
ENTRIES_MAX: Final = 2_000_000
SUM_MAX_FEN: Final = 10**18 - 1  # of one direction: the database keeps sums in eight bytes
REMITTANCE_MAX: Final = 140
_FIRST_BYTES: Final = b"<\xef \t\r\n"  # the parser would take UTF-16 by its mark; \xef begins that of UTF-8
_AMOUNT: Final = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,2})0*)?", re.ASCII).fullmatch
_ENTRY_TEXTS: Final = frozenset(
    ("Amt", "CdtDbtInd", "Sts/Cd", "BookgDt/Dt", "BookgDt/DtTm", "AcctSvcrRef", "RvslInd")
)
_DETAIL_TEXTS: Final = frozenset(
    ("Amt", "CdtDbtInd", "Refs/EndToEndId", "Refs/AcctSvcrRef", "RtrInf/Rsn/Cd", "RmtInf/Ustrd")
)
_STATEMENT_TEXTS: Final = frozenset(("Id", "CreDtTm", "Acct/Id/Othr/Id", "Acct/Id/IBAN"))
_BALANCE_TEXTS: Final = frozenset(("Tp/CdOrPrtry/Cd", "Amt", "CdtDbtInd"))


class StatementRefused(InputRefused):
    """A file that is no statement, or breaks a rule. Nothing of it was taken."""


class Head(NamedTuple):
    """What a statement says of itself. Balances are those of camt.053; a debit balance is below zero."""

    kind: str
    statement_id: str
    created_at: datetime
    account: str
    opening_fen: int | None
    closing_fen: int | None

    def __repr__(self) -> str:
        return f"Head({self.kind}, {self.statement_id})"


class Entry(NamedTuple):
    """One movement of the account. bank_ref: the bank's own, empty if it gives none. reason_code: why a payment came back."""

    bank_ref: str
    end_to_end_id: str
    remittance: str
    amount_fen: int
    is_credit: bool
    is_booked: bool
    reason_code: str
    booked_on: date | None


class End(NamedTuple):
    """A statement has ended; sums over its booked entries."""

    entry_count: int
    credit_fen: int
    debit_fen: int


Event = Head | Entry | End
Texts = dict[str, str]


class StatementReader:
    """Reads one file. `feed` bytes as they come, then `finish`; each gives the events that they complete."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate("UTF-8", " ")
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._declared
        self._parser.StartDoctypeDeclHandler = self._document_type
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._events: list[Event] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._text_size = 0
        self._fed = 0
        self._seen = 0
        self._kind: tuple[str, str, str] | None = None
        self._namespace = ""
        self._foreign = 0  # depth of supplementary data, where any namespace may stand
        self._statement: Texts = {}
        self._balance: Texts = {}
        self._balances: dict[str, int] = {}
        self._entry: Texts = {}
        self._detail: Texts = {}
        self._places: list[tuple[int, Texts, frozenset[str]]] = []
        self._headed = False
        self._detail_fen = self._details = 0
        self._count = self._credit_fen = self._debit_fen = 0
        self._statements = 0

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes in pieces of any size. Raises StatementRefused."""
        if data and not self._fed and data[0] not in _FIRST_BYTES:
            raise self._refusal("must be UTF-8, and begin with an XML declaration or element")
        self._fed += len(data)
        self._parse(data, final=False)
        if self._fed - self._seen > TOKEN_BYTES_MAX:
            raise self._refusal(f"something longer than {TOKEN_BYTES_MAX} bytes that does not end")
        return self._taken()

    def finish(self) -> list[Event]:
        """The file has ended. Raises StatementRefused when it should go on, or held no statement."""
        self._parse(b"", final=True)
        if not self._statements:
            raise self._refusal("no statement in it")
        return self._taken()

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _parse(self, data: bytes, *, final: bool) -> None:
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            raise StatementRefused(
                f"line {error.lineno}: not well-formed XML in UTF-8 ({expat.ErrorString(error.code)})"
            ) from None

    def _refusal(self, rule: str) -> StatementRefused:
        return StatementRefused(f"line {self._parser.CurrentLineNumber}: {rule}")

    def _declared(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.upper() != "UTF-8":
            raise self._refusal("encoding must be UTF-8")

    def _document_type(self, *_: object) -> None:
        raise self._refusal("a document type (DOCTYPE) is not allowed")

    def _characters(self, text: str) -> None:
        self._seen = self._parser.CurrentByteIndex
        self._text_size += len(text)
        if self._text_size > TEXT_MAX:
            raise self._refusal(f"text longer than {TEXT_MAX} characters")
        if self._places:
            self._text.append(text)

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._seen = self._parser.CurrentByteIndex
        namespace, _, local = name.rpartition(" ")
        self._text.clear()
        self._text_size = 0
        if len(self._path) >= DEPTH_MAX:
            raise self._refusal(f"deeper than {DEPTH_MAX} elements")
        if not self._path:
            self._kind = NAMESPACES.get(namespace)
            self._namespace = namespace
            if self._kind is None or local != "Document":
                raise self._refusal("must be a Document of camt.053.001.08 or camt.054.001.08")
        elif namespace != self._namespace and not self._foreign:
            raise self._refusal("an element of another namespace")
        if self._foreign or local == "SplmtryData":
            self._foreign += 1
        self._path.append(local)
        if not self._foreign:
            self._opened(local, attributes)

    def _opened(self, local: str, attributes: dict[str, str]) -> None:
        assert self._kind is not None
        _, message, statement = self._kind
        depth = len(self._path)
        if depth == 2 and local != message:
            raise self._refusal(f"must hold {message}")
        if depth == 3 and local == statement:
            self._open(self._statement, _STATEMENT_TEXTS)
            self._balances.clear()
            self._headed = False
            self._count = self._credit_fen = self._debit_fen = 0
        elif depth == 4 and local == "Bal" and self._places:
            self._open(self._balance, _BALANCE_TEXTS)
        elif depth == 4 and local == "Ntry" and self._places:
            self._head()
            self._open(self._entry, _ENTRY_TEXTS)
            self._details = self._detail_fen = 0
        elif depth == 6 and local == "TxDtls" and self._path[3:5] == ["Ntry", "NtryDtls"]:
            self._open(self._detail, _DETAIL_TEXTS)
        elif (
            local == "Amt"
            and self._places
            and depth == self._places[-1][0] + 1
            and attributes.get("Ccy") != "CNY"
        ):
            raise self._refusal("amounts must be in CNY")

    def _open(self, texts: Texts, wanted: frozenset[str]) -> None:
        texts.clear()
        self._places.append((len(self._path), texts, wanted))

    def _end(self, _name: str) -> None:
        self._seen = self._parser.CurrentByteIndex
        depth = len(self._path)
        if self._places and not self._foreign:
            start, texts, wanted = self._places[-1]
            if depth == start:
                self._places.pop()
                self._closed(self._path[-1])
            else:
                self._keep("/".join(self._path[start:]), texts, wanted)
        if self._foreign:
            self._foreign -= 1
        self._path.pop()
        self._text.clear()
        self._text_size = 0

    def _keep(self, place: str, texts: Texts, wanted: frozenset[str]) -> None:
        if place == "RtrInf" and self._path[3:4] == ["Ntry"]:
            texts.setdefault("RtrInf/Rsn/Cd", "?")  # it came back, and nobody says why
        if place not in wanted:
            return
        # A bank may break a line or set a full-width space in a text for people: that is one space, and no reason to take nothing.
        text = " ".join("".join(self._text).split())
        if not text.isprintable():
            raise self._refusal(f"{place}: printable characters only")
        if place == "RmtInf/Ustrd":
            texts[place] = f"{texts.get(place, '')} {text}".strip()[:REMITTANCE_MAX]
        elif place in texts:
            raise self._refusal(f"{place} is given twice")
        else:
            texts[place] = text

    def _closed(self, local: str) -> None:
        closed: dict[str, Callable[[], None]] = {
            "Bal": self._balance_ended,
            "TxDtls": self._detail_ended,
            "Ntry": self._entry_ended,
        }
        closed.get(local, self._statement_ended)()

    def _balance_ended(self) -> None:
        code = self._balance.get("Tp/CdOrPrtry/Cd", "")
        if code not in ("OPBD", "PRCD", "CLBD"):
            return
        if code in self._balances:
            raise self._refusal(f"balance {code} is given twice")
        fen = self._fen(self._balance, zero=True)
        self._balances[code] = fen if self._credit(self._balance) else -fen

    def _head(self) -> None:
        """At the first entry, or at the end: everything that a head says stands before them."""
        if self._headed:
            return
        assert self._kind is not None
        self._headed = True
        statement_id = self._short(self._statement, "Id")
        if not statement_id:
            raise self._refusal("a statement needs its Id")
        try:
            created_at = datetime.fromisoformat(self._statement.get("CreDtTm", ""))
        except ValueError:
            raise self._refusal("CreDtTm must be a time") from None
        account = self._statement.get("Acct/Id/Othr/Id") or self._statement.get("Acct/Id/IBAN", "")
        opening = self._balances.get("OPBD", self._balances.get("PRCD"))
        closing = self._balances.get("CLBD")
        if self._kind[0] == "camt.053" and (opening is None or closing is None):
            raise self._refusal("a statement needs its balances OPBD and CLBD")
        if self._kind[0] == "camt.054":
            opening = closing = None
        if created_at.tzinfo is None:
            raise self._refusal("CreDtTm must have its offset from UTC")
        self._events.append(Head(self._kind[0], statement_id, created_at, account, opening, closing))

    def _detail_ended(self) -> None:
        texts = {**self._entry, **self._detail}
        if "Amt" not in self._detail:
            if self._details:
                raise self._refusal("each of several TxDtls needs its Amt")
            self._detail_fen += self._fen(self._entry)
        else:
            self._detail_fen += self._fen(self._detail)
        self._details += 1
        texts["AcctSvcrRef"] = self._detail.get(
            "Refs/AcctSvcrRef", self._entry.get("AcctSvcrRef", "") if self._details == 1 else ""
        )
        self._emit(texts)

    def _entry_ended(self) -> None:
        if not self._details:
            self._emit(self._entry)
        elif self._detail_fen != self._fen(self._entry):
            raise self._refusal("the amounts of TxDtls do not add up to the entry's")

    def _emit(self, texts: Texts) -> None:
        fen, credit = self._fen(texts), self._credit(texts)
        if credit != self._credit(self._entry):
            raise self._refusal("TxDtls and their entry go in different directions")
        status = texts.get("Sts/Cd", "")
        if status not in ("BOOK", "PDNG", "INFO", "FUTR"):
            raise self._refusal("Sts must be BOOK, PDNG, INFO or FUTR")
        reason = texts.get("RtrInf/Rsn/Cd", "")
        if texts.get("RvslInd") == "true" and not reason:
            reason = "?"
        self._events.append(
            Entry(
                self._short(texts, "AcctSvcrRef"),
                self._short(texts, "Refs/EndToEndId"),
                texts.get("RmtInf/Ustrd", ""),
                fen,
                credit,
                status == "BOOK",
                reason[:35],
                self._day(texts.get("BookgDt/Dt") or texts.get("BookgDt/DtTm", "")[:10]),
            )
        )
        self._count += 1
        if self._count > ENTRIES_MAX:
            raise self._refusal(f"more than {ENTRIES_MAX} entries")
        if status == "BOOK":
            self._credit_fen += fen if credit else 0
            self._debit_fen += 0 if credit else fen
            if max(self._credit_fen, self._debit_fen) > SUM_MAX_FEN:
                raise self._refusal("the entries come to more than 18 digits of fen")

    def _statement_ended(self) -> None:
        self._head()
        self._statements += 1
        self._events.append(End(self._count, self._credit_fen, self._debit_fen))

    def _short(self, texts: Texts, place: str) -> str:
        text = texts.get(place, "")
        if len(text) > 35:
            raise self._refusal(f"{place}: at most 35 characters")
        return text

    def _day(self, text: str) -> date | None:
        try:
            return date.fromisoformat(text) if text else None
        except ValueError:
            raise self._refusal("BookgDt must be a date") from None

    def _fen(self, texts: Texts, *, zero: bool = False) -> int:
        found = _AMOUNT(texts.get("Amt", ""))
        if found is None:
            raise self._refusal("Amt must be yuan with at most two decimals")
        fen = int(found[1]) * 100 + int((found[2] or "0").ljust(2, "0"))
        if not fen and not zero:
            raise self._refusal("Amt of an entry must be above zero")
        return fen

    def _credit(self, texts: Texts) -> bool:
        word = texts.get("CdtDbtInd", "")
        if word not in ("CRDT", "DBIT"):
            raise self._refusal("CdtDbtInd must be CRDT or DBIT")
        return word == "CRDT"
