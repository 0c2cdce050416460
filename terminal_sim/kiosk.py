"""A load kiosk 圈存機: a terminal that also puts money on cards and into online accounts.

A purse load is a conversation of three: card, kiosk, switch. `initialize` asks the card, `load` the switch, `credit` the card again, and one of
`confirm`, `card_gone` and `refused_by_card` tells the switch how it ended. `perform` does all of it on a line.

What is owed outlives everything else: a load without a usable answer is reversed, a confirm is sent until it is answered. A kiosk that
does not know whether the card took the money never reverses.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from switch.domain.transactions import Kind
from switch.messages.message import Message
from switch.messages.tlv import tlv_values, write_tlvs
from terminal_sim.apdu import Sw
from terminal_sim.frames import CardData, Fields, OriginalRef, Terminal, purchase_fields
from terminal_sim.pos import REVERSALS_MAX, Pos
from terminal_sim.pos_answers import NO_ANSWER, UNUSABLE, Answer, Request, UnusableAnswerError
from terminal_sim.pos_batch import NotNowError, Receipt
from terminal_sim.pos_client import NoAnswerError, PosClient
from terminal_sim.reading import CardFacts, CardGoneError, Reader, ask, read_facts

CONFIRMS_MAX = 64
TTI_LOAD = b"\x02"
INITIALIZE_BYTES = 16


class From(Enum):
    """Whose money: transaction type 60.1, and digits TT AA of field 3."""

    BOUND_BANK = ("45", "6000")
    ONLINE = ("45", "6010")
    OTHER_BANK = ("47", "6200")
    CASH = ("46", "6300")


@dataclass(frozen=True, slots=True)
class Start:
    """What INITIALIZE FOR LOAD answered, and for what."""

    facts: CardFacts
    psam_no: str
    key_index: int
    amount_fen: int
    balance_fen: int
    online_atc: int
    version: int
    algorithm: int
    random: bytes
    mac1: bytes

    def __repr__(self) -> str:
        return f"Start({self.facts!r}, {self.amount_fen} fen, online_atc={self.online_atc})"

    def field55(self) -> bytes:
        """Of the load request."""
        return write_tlvs(
            {
                "DF11": bytes.fromhex(self.facts.asn),
                "DF12": self.facts.issuer_id,
                "DF1A": bytes((self.key_index,)),
                "DF15": bytes((self.version, self.algorithm)),
                "DF13": self.balance_fen.to_bytes(4),
                "DF14": self.online_atc.to_bytes(2),
                "DF16": self.random,
                "DF17": self.mac1,
                "DF18": bytes.fromhex(self.psam_no),
                "DF19": TTI_LOAD,
            }
        )


class Ended(NamedTuple):
    """How a load ended for the kiosk. code: of the load, empty without an answer. told: of the confirm or reversal, empty when still owed."""

    code: str
    on_card: bool | None  # None: the card is gone, and nobody knows
    told: str = ""


class Kiosk(Pos):
    """A terminal's mind with loads. psam_no: the number under which cards know it, 12 digits."""

    __slots__ = ("confirms", "loads", "psam_no", "starts")

    def __init__(self, terminal: Terminal, psam_no: str, *, batch_no: int = 0, next_trace: int = 1) -> None:
        super().__init__(terminal, batch_no=batch_no, next_trace=next_trace)
        self.psam_no = psam_no
        self.loads: dict[str, int] = {}  # purse loads of this batch by trace, in fen
        self.starts: dict[str, Start] = {}  # of loads whose end is not told yet, by trace
        self.confirms: list[Request] = []  # owed

    def _forget_batch(self) -> None:
        super()._forget_batch()
        self.loads.clear()

    # --- the card -----------------------------------------------------------------------------------------------

    def initialize(self, reader: Reader, amount_fen: int, key_index: int) -> Start:
        """圈存初始化. CardRejectedError with the card's status word, CardGoneError."""
        facts = read_facts(reader)
        data = bytes((key_index,)) + amount_fen.to_bytes(4) + bytes.fromhex(self.psam_no)
        body = ask(
            reader, bytes.fromhex("805000020B") + data + bytes((INITIALIZE_BYTES,)), "INITIALIZE FOR LOAD"
        )
        return Start(
            facts,
            self.psam_no,
            key_index,
            amount_fen,
            int.from_bytes(body[:4]),
            int.from_bytes(body[4:6]),
            body[6],
            body[7],
            body[8:12],
            body[12:16],
        )

    def credit(self, reader: Reader, answer: Message) -> tuple[int, bytes]:
        """圈存: hand the switch's MAC2 to the card; its status word and TAC. CardGoneError."""
        told = tlv_values(answer.fields[55])
        command = bytes.fromhex("805200000B") + told["DF21"] + told["DF22"] + told["DF23"] + b"\x04"
        body = reader.transmit(command)
        return int.from_bytes(body[-2:]), body[:-2]

    # --- making requests ----------------------------------------------------------------------------------------

    def load(
        self,
        card: CardData,
        amount_fen: int,
        source: From = From.CASH,
        start: Start | None = None,
        *,
        pin: str | None = None,
        entry: str = "05",
    ) -> Request:
        """圈存 with a start, 充值 of the online account without one."""
        pin_pad = self._before_money()
        if len(self.confirms) >= CONFIRMS_MAX:
            raise NotNowError("too many confirms are owed")
        trace, (kind, code) = self.next_trace(), source.value
        fields = purchase_fields(
            self.terminal,
            pin_pad,
            card,
            amount_fen,
            batch_no=self.batch_no,
            trace=trace,
            pin=pin,
            entry=entry,
        )
        processing = code + ("00" if start is not None else "10")
        fields |= {3: processing, 25: "91", 60: kind + fields[60][2:]}
        if start is not None:
            fields[55] = start.field55() + fields.get(55, b"")
            self.starts[fields[11]] = start
        return self._request(Kind.LOAD, "0200", fields)

    def confirm(self, load: Request, answer: Message, status: int, tac: bytes | None) -> Request:
        """圈存確認; without a TAC the card is gone. Owed from now on."""
        start = self.starts[load.fields[11]]
        told = tlv_values(answer.fields[55])
        values = {
            "DF11": bytes.fromhex(start.facts.asn),
            "DF14": start.online_atc.to_bytes(2),
            "DF18": bytes.fromhex(start.psam_no),
            "DF19": TTI_LOAD,
            "DF21": told["DF21"],
            "DF22": told["DF22"],
        }
        if tac is not None:
            values |= {"DF31": tac, "DF32": (start.balance_fen + start.amount_fen).to_bytes(4)}
        values["DF33"] = (status if tac is not None else 0).to_bytes(2)
        made = self._again(load, answer)
        made |= {11: f"{self.next_trace():06d}", 37: answer.fields[37], 55: write_tlvs(values)}
        request = self._request(Kind.LOAD_CONFIRM, "0220", made)
        self.confirms.append(request)
        return request

    def refused_by_card(self, load: Request, answer: Message, status: int) -> Request:
        """沖正 of a load that the card did not take, with what it shows now. Owed from now on."""
        start = self.starts[load.fields[11]]
        made = self.reversal(load, UNUSABLE)
        made.fields[55] = write_tlvs(
            {
                "DF11": bytes.fromhex(start.facts.asn),
                "DF13": start.balance_fen.to_bytes(4),
                "DF14": start.online_atc.to_bytes(2),
                "DF33": status.to_bytes(2),
            }
        )
        if answer.fields.get(38):
            made.fields[38] = answer.fields[38]
        self._owe(made)
        return made

    def _owe(self, reversal: Request) -> None:
        if len(self.reversals) >= REVERSALS_MAX:
            raise NotNowError("too many reversals are owed")
        self.reversals.append(reversal)

    @staticmethod
    def _again(load: Request, answer: Message) -> Fields:
        """The fields that a confirm has of its load."""
        fields = load.fields
        ref = OriginalRef(int(fields[60][2:8]), int(fields[11]), answer.fields[13])
        kept = {n: fields[n] for n in (2, 3, 4, 14, 22, 23, 25, 41, 42, 49, 60) if n in fields}
        return kept | {61: ref.field61()}

    # --- answers ------------------------------------------------------------------------------------------------

    def take(self, request: Request, body: bytes) -> Answer:
        """As of any terminal; loads count in the purse group, reversed ones no more."""
        answer = super().take(request, body)
        if request.kind is Kind.LOAD_CONFIRM and answer.code not in ("A0", "96", "77"):
            self.confirms = [owed for owed in self.confirms if owed is not request]
        if request.kind is Kind.REVERSAL and answer.approved:
            fen = self.loads.pop(request.fields[11], None)
            if fen is not None and int(request.fields[60][2:8]) == self.batch_no:
                self._count(-fen, -1)
        return answer

    def give_up(self, request: Request, reason: str = NO_ANSWER) -> Request | None:
        """A load without a usable answer is owed a reversal."""
        owed = super().give_up(request, reason)
        if request.kind is Kind.LOAD:
            owed = self.reversal(request, reason)
            self._owe(owed)
        return owed

    def _approved(self, request: Request, message: Message) -> Receipt | None:
        if request.kind is not Kind.LOAD:
            return super()._approved(request, message)
        fields = message.fields
        if 37 not in fields or 13 not in fields:
            raise UnusableAnswerError(UNUSABLE, "field 37 or 13 is missing")
        if request.fields[3].endswith("00"):
            if not {"DF21", "DF22", "DF23"} <= tlv_values(fields.get(55, b"")).keys():
                raise UnusableAnswerError(UNUSABLE, "field 55 has no MAC2")
            if request.fields[11] not in self.loads:
                self.loads[request.fields[11]] = int(request.fields[4])
                self._count(int(request.fields[4]), 1)
        return Receipt(Kind.LOAD, request.fields, fields[37], fields.get(38, ""), fields[13])

    def _count(self, fen: int, count: int) -> None:
        purse = self.batch.purse
        self.batch.purse = purse._replace(
            credit_fen=purse.credit_fen + fen, credit_count=purse.credit_count + count
        )


class KioskClient(PosClient):
    """A kiosk at work on a line."""

    __slots__ = ()

    @property
    def kiosk(self) -> Kiosk:
        """Its mind."""
        assert isinstance(self.pos, Kiosk)
        return self.pos

    async def perform(
        self,
        reader: Reader,
        card: CardData,
        amount_fen: int,
        key_index: int,
        source: From = From.CASH,
        *,
        pin: str | None = None,
    ) -> Ended:
        """One whole load of a card. CardRejectedError or CardGoneError before anything was asked of the switch."""
        await self.ready()
        await self.finish_confirms()
        kiosk = self.kiosk
        start = kiosk.initialize(reader, amount_fen, key_index)
        request = kiosk.load(card, amount_fen, source, start, pin=pin)
        outcome = await self.transact(request)
        if outcome.answer is None:
            return Ended("", on_card=False, told=outcome.reversal)
        code, message = outcome.answer.code, outcome.answer.message
        if not outcome.approved:
            return Ended(code, on_card=False)
        try:
            status, tac = kiosk.credit(reader, message)
        except CardGoneError:
            return Ended(code, None, await self._tell(kiosk.confirm(request, message, 0, None)))
        if status == Sw.OK:
            return Ended(
                code, on_card=True, told=await self._tell(kiosk.confirm(request, message, status, tac))
            )
        return Ended(
            code, on_card=False, told=await self._tell(kiosk.refused_by_card(request, message, status))
        )

    async def top_up(self, card: CardData, amount_fen: int) -> Ended:
        """充值 of the online account with cash."""
        await self.ready()
        outcome = await self.transact(self.kiosk.load(card, amount_fen))
        if outcome.answer is None:
            return Ended("", on_card=False, told=outcome.reversal)
        return Ended(outcome.answer.code, on_card=False)

    async def finish_confirms(self) -> bool:
        """Send the confirms that are owed; whether none is any more."""
        for owed in tuple(self.kiosk.confirms):
            await self._tell(owed)
        return not self.kiosk.confirms

    async def _tell(self, request: Request) -> str:
        """Its answer, or nothing: then it stays owed."""
        try:
            return (await self.insist(request)).code
        except (NoAnswerError, UnusableAnswerError, NotNowError):
            return ""
