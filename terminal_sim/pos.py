"""A POS terminal's mind: what it asks, what it makes of the answers, what it still owes. No socket and no clock.

A request is made (`purchase`, `upload`, …), sent as the bytes of `pack`, and settled by exactly one of

* `take`, when its answer came: totals, receipts, keys and batch follow from it;
* `give_up`, when no usable answer came: what took money is then owed a reversal 沖正, everything else is sent again as it is.

`pack` computes the MAC each time, so a request can be sent again after a new sign-on. The terminal keeps its own totals of
the batch and settles by them, not by what the switch says.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Unpack

from switch.domain.calendar import SHANGHAI
from switch.domain.transactions import Kind
from switch.messages.message import Message
from switch.messages.terminal_1987 import ANSWER_MTI
from terminal_sim import frames, sm2
from terminal_sim.crypto import CheckValueError, check_value, unwrap_working_keys
from terminal_sim.frames import (
    RECORDS_PER_UPLOAD,
    CardData,
    Entry,
    Fields,
    Numbers,
    OriginalRef,
    PinPad,
    Terminal,
)
from terminal_sim.pos_answers import (
    MAC_WRONG,
    NO_ANSWER,
    UNUSABLE,
    Answer,
    Request,
    UnusableAnswerError,
    checked_answer,
)
from terminal_sim.pos_batch import COUNTED, RECEIPTS_MAX, Batch, NotNowError, Receipt, answers_upload

MASTER_KEY_ENVELOPE_BYTES = 182
TRACE_MAX = 999_999
REVERSALS_MAX = 64
REVERSAL_FINAL = frozenset(("00", "12", "25"))
SIGN_ON_AGAIN = 3  # processing requirement in the header
_NEVER_RETRIED = frozenset(("30", "77", "94"))  # the same upload would only get the same answer

_UNDOABLE = frozenset(
    (
        Kind.PURCHASE,
        Kind.VOID,
        Kind.PRE_AUTHORISATION,
        Kind.PRE_AUTHORISATION_VOID,
        Kind.COMPLETION,
        Kind.COMPLETION_VOID,
    )
)
_RECEIPTED = _UNDOABLE | {Kind.REFUND, Kind.COMPLETION_ADVICE}
_VOIDS = frozenset((Kind.VOID, Kind.PRE_AUTHORISATION_VOID, Kind.COMPLETION_VOID))


def _shanghai_today() -> date:
    return datetime.now(SHANGHAI).date()


class Pos:
    """One terminal. Small: a few hundred bytes and what its batch holds."""

    __slots__ = (
        "_today",
        "_trace",
        "_uploading",
        "batch",
        "batch_no",
        "must_sign_on",
        "pin_pad",
        "processing",
        "reversals",
        "terminal",
    )

    def __init__(
        self,
        terminal: Terminal,
        *,
        batch_no: int = 0,
        next_trace: int = 1,
        today: Callable[[], date] = _shanghai_today,
    ) -> None:
        """batch_no 0: never signed on. today: the terminal's calendar, for field 61 of a reversal."""
        self.terminal = terminal
        self.pin_pad: PinPad | None = None
        self.batch_no = batch_no
        self.must_sign_on = True
        self.processing = 0  # last processing requirement
        self.batch = Batch()
        self.reversals: deque[Request] = deque()  # owed; nothing else financial before them
        self._trace = next_trace
        self._today = today
        self._uploading: Request | None = None

    def _forget_batch(self) -> None:
        self.batch = Batch(self.batch.unsent)
        self._uploading = None

    def __repr__(self) -> str:
        return f"Pos({self.terminal.terminal_id}, batch {self.batch_no:06d})"

    # --- making requests ----------------------------------------------------------------------------------------

    def next_trace(self) -> int:
        """Take a trace number; after 999999 comes 1."""
        trace = self._trace
        self._trace = trace + 1 if trace < TRACE_MAX else 1
        return trace

    def _numbers(self) -> Numbers:  # of the next request
        return {"batch_no": self.batch_no, "trace": self.next_trace()}

    def pack(self, request: Request) -> bytes:
        """The frame with LEN, its MAC under the keys of now. NotNowError without keys."""
        if not request.with_mac:
            return frames.pack(self.terminal, request.mti, request.fields, None)
        return frames.pack(self.terminal, request.mti, request.fields, self._keys())

    def _keys(self) -> PinPad:
        if self.pin_pad is None:
            raise NotNowError("sign on first")
        return self.pin_pad

    @staticmethod
    def _request(
        kind: Kind | str, mti: str, fields: Fields, *, with_mac: bool = True, receipt: Receipt | None = None
    ) -> Request:
        key = (ANSWER_MTI[mti], int(fields.get(11, "0")))
        return Request(kind, mti, fields, with_mac, key, receipt)

    def sign_on(self, mode: str = "") -> Request:
        """簽到; mode is field 60.3, by default double-length 3DES (003) or SM4 (005) as the MAC algorithm asks."""
        mode = mode or self.terminal.sign_on_mode
        fields = frames.sign_on_fields(self.terminal, mode, **self._numbers())
        return self._request(mode, "0800", fields, with_mac=False)

    def echo(self) -> Request:
        """回響測試."""
        fields = frames.management_fields(self.terminal, "301", batch_no=self.batch_no, trace=None)
        return self._request("301", "0820", fields, with_mac=False)

    def sign_off(self) -> Request:
        """簽退."""
        return self.management("002", "0820")

    def master_key_download(self, public_key: bytes) -> Request:
        """終端主密鑰下載, 811: the terminal's SM2 public key and its serial number."""
        return self._without_mac("811", public_key + self.terminal.serial_number.encode("ascii"))

    def master_key_confirm(self, kcv: bytes) -> Request:
        """終端主密鑰確認, 812."""
        return self._without_mac("812", kcv)

    def _without_mac(self, code: str, field62: bytes) -> Request:
        fields = frames.management_fields(self.terminal, code, **self._numbers(), field62=field62)
        return self._request(code, "0800", fields, with_mac=False)

    def open_master_key(self, envelope: bytes, pair: sm2.Pair, centre_key: bytes) -> bytes:
        """The TMK out of field 62 of the answer to 811, 182 bytes.

        sm2.Sm2Error when the key centre has not signed it or it is not for this pair; CheckValueError when the check value differs.
        """
        if len(envelope) != MASTER_KEY_ENVELOPE_BYTES or envelope[0] != self.terminal.algorithm:
            raise sm2.Sm2Error("the envelope has the wrong form")
        sm2.verify(centre_key, envelope[:118], envelope[118:])
        tmk = sm2.decrypt(pair.private, envelope[1:114])
        if check_value(self.terminal.algorithm, tmk) != envelope[114:118]:
            raise CheckValueError("the master key has another check value")
        return tmk

    def management(self, code: str, mti: str = "0800", field62: bytes = b"") -> Request:
        """Any other administrative message with a MAC: 360, 361, 362, 390, 391."""
        fields = frames.management_fields(self.terminal, code, **self._numbers(), field62=field62)
        return self._request(code, mti, fields)

    def _before_money(self) -> PinPad:
        if self.reversals:
            raise NotNowError("a reversal must be finished first")
        if len(self.batch.receipts) >= RECEIPTS_MAX:
            raise NotNowError("memory is full: settle the batch")
        return self._keys()

    def purchase(self, card: CardData, amount_fen: int, **how: Unpack[Entry]) -> Request:
        """消費."""
        pad = self._before_money()
        fields = frames.purchase_fields(self.terminal, pad, card, amount_fen, **self._numbers(), **how)
        return self._request(Kind.PURCHASE, "0200", fields)

    def balance(self, card: CardData, **how: Unpack[Entry]) -> Request:
        """餘額查詢."""
        pad = self._before_money()
        fields = frames.balance_fields(self.terminal, pad, card, **self._numbers(), **how)
        return self._request(Kind.BALANCE, "0200", fields)

    def void(self, receipt: Receipt) -> Request:
        """消費撤銷 of a purchase in this batch."""
        self._before_money()
        fields = frames.void_fields(
            receipt.fields, receipt.ref, rrn=receipt.rrn, auth_code=receipt.auth_code, **self._numbers()
        )
        return self._request(Kind.VOID, "0200", fields, receipt=receipt)

    def refund(self, receipt: Receipt, amount_fen: int) -> Request:
        """退貨 of all or part of a purchase, of any batch."""
        self._before_money()
        fields = frames.refund_fields(
            receipt.fields, receipt.ref, amount_fen, rrn=receipt.rrn, **self._numbers()
        )
        return self._request(Kind.REFUND, "0220", fields, receipt=receipt)

    def pre_authorisation(self, card: CardData, amount_fen: int, **how: Unpack[Entry]) -> Request:
        """預授權."""
        pad = self._before_money()
        fields = frames.pre_authorisation_fields(
            self.terminal, pad, card, amount_fen, **self._numbers(), **how
        )
        return self._request(Kind.PRE_AUTHORISATION, "0100", fields)

    def pre_authorisation_void(self, receipt: Receipt) -> Request:
        """預授權撤銷."""
        self._before_money()
        fields = frames.pre_authorisation_void_fields(
            receipt.fields, receipt.ref, auth_code=receipt.auth_code, **self._numbers()
        )
        return self._request(Kind.PRE_AUTHORISATION_VOID, "0100", fields, receipt=receipt)

    def completion(self, receipt: Receipt, amount_fen: int, *, advice: bool = False) -> Request:
        """預授權完成, or the advice of one."""
        self._before_money()
        fields = frames.completion_fields(
            receipt.fields,
            receipt.ref,
            amount_fen,
            auth_code=receipt.auth_code,
            **self._numbers(),
            advice=advice,
        )
        kind, mti = (Kind.COMPLETION_ADVICE, "0220") if advice else (Kind.COMPLETION, "0200")
        return self._request(kind, mti, fields, receipt=receipt)

    def completion_void(self, receipt: Receipt) -> Request:
        """預授權完成撤銷 of a completion in this batch."""
        self._before_money()
        fields = frames.completion_void_fields(
            receipt.fields, receipt.ref, rrn=receipt.rrn, auth_code=receipt.auth_code, **self._numbers()
        )
        return self._request(Kind.COMPLETION_VOID, "0200", fields, receipt=receipt)

    def reversal(self, original: Request, reason: str, auth_code: str = "") -> Request:
        """沖正 of a request. `give_up` makes it when it is owed; call this to reverse for another reason (06)."""
        fields = original.fields
        ref = OriginalRef(int(fields[60][2:8]), int(fields[11]), self._today())
        made = frames.reversal_fields(fields, ref, reason, auth_code=auth_code)
        return self._request(Kind.REVERSAL, "0400", made)

    # --- batch --------------------------------------------------------------------------------------------------

    def store_record(self, record: bytes) -> None:
        """Keep one 96-byte offline record until it is answered and the batch is closed."""
        self.batch.store(record)

    def results(self) -> dict[int, str]:
        """Result of every record answered in this batch, by the record's own serial."""
        return {int.from_bytes(serial): result for serial, (_, result) in self.batch.answered.items()}

    def upload(self) -> Request | None:
        """脫機上送 of the oldest records, the same request until it is answered; None when nothing is left."""
        if self._uploading is None and self.batch.unsent:
            self._uploading = self._upload_of(self.batch.oldest())
        return self._uploading

    def _upload_of(self, records: Sequence[bytes]) -> Request:
        fields = frames.upload_fields(self.terminal, records, **self._numbers())
        return self._request(Kind.UPLOAD, "0320", fields)

    def settlement(self) -> Request:
        """批結算 by the terminal's own figures. NotNowError while records are unsent or reversals owed."""
        if self.batch.unsent or self.reversals:
            raise NotNowError("upload all records and finish all reversals first")
        fields = frames.settlement_fields(
            self.terminal, self.batch.accounts, self.batch.purse, **self._numbers()
        )
        return self._request(Kind.SETTLEMENT, "0500", fields)

    def details(self) -> list[Request]:
        """批上送 of the batch's online transactions, eight a message."""
        items, step = self.batch.details(), frames.DETAILS_PER_MESSAGE
        made = []
        for at in range(0, len(items), step):
            trace = self.next_trace()
            part = items[at : at + step]
            fields = frames.detail_fields(self.terminal, part, batch_no=self.batch_no, trace=trace)
            made.append(self._request(Kind.DETAIL_UPLOAD, "0320", fields))
        return made

    def records_again(self) -> list[Request]:
        """The batch's offline records once more, for a purse group in doubt."""
        records, step = [record for record, _ in self.batch.answered.values()], RECORDS_PER_UPLOAD
        return [self._upload_of(records[at : at + step]) for at in range(0, len(records), step)]

    def batch_end(self, *, balanced: bool, records_in_doubt: bool = False) -> Request:
        """批上送結束. Its count is that of the offline records or, unbalanced, of all details sent."""
        records, details = len(self.batch.answered), len(self.batch.receipts)
        count = records if balanced else details + (records if records_in_doubt else 0)
        fields = frames.batch_end_fields(self.terminal, balanced, count, **self._numbers())
        return self._request(Kind.BATCH_END, "0320", fields)

    # --- answers ------------------------------------------------------------------------------------------------

    def take(self, request: Request, body: bytes) -> Answer:
        """Settle a request by its answer (a frame without LEN).

        UnusableAnswerError when the answer cannot be read, is not this request's, or has a wrong MAC; nothing has
        changed then, and `give_up` comes next.
        """
        message = checked_answer(request, body, self.pin_pad)
        code: str = message.fields[39]
        self.processing = message.header[2] & 0x0F
        if self.processing == SIGN_ON_AGAIN or code in ("77", "A0", "97"):
            self.must_sign_on = True
        receipt = None
        if code == "00":
            receipt = self._approved(request, message)
        elif request is self._uploading and code in _NEVER_RETRIED:
            self._uploading = None
        if request.kind is Kind.REVERSAL and code in REVERSAL_FINAL:
            self.reversals = deque(owed for owed in self.reversals if owed.key != request.key)
            if code == "00" and int(request.fields[60][2:8]) == self.batch_no:
                self.batch.take_back(request.fields[11])
        return Answer(code, self.processing, message, receipt)

    def give_up(self, request: Request, reason: str = NO_ANSWER) -> Request | None:
        """No usable answer came. Returns the reversal that is now owed, None for what may simply be sent again."""
        if reason == MAC_WRONG:
            self.must_sign_on = True  # whoever answered has other keys
        if request.kind not in _UNDOABLE:
            return None
        if len(self.reversals) >= REVERSALS_MAX:
            raise NotNowError("too many reversals are owed")
        owed = self.reversal(request, reason)
        self.reversals.append(owed)
        return owed

    def _approved(self, request: Request, message: Message) -> Receipt | None:
        """What follows from a 00; UnusableAnswerError when a part it must have is missing."""
        kind, fields = request.kind, message.fields
        if isinstance(kind, str):
            if request.mti == "0800" and kind in ("001", "003", "004", "005", "006"):
                self._signed_on(fields)
            elif kind == "002":
                self.pin_pad, self.must_sign_on = None, True
        elif kind is Kind.UPLOAD:
            self._uploaded(request, fields.get(62, b""))
        elif kind is Kind.BATCH_END:
            self._forget_batch()
            self.must_sign_on = True  # a new batch number comes with the next sign-on
        elif kind in _RECEIPTED:
            if 37 not in fields or 13 not in fields:
                raise UnusableAnswerError(UNUSABLE, "field 37 or 13 is missing")
            receipt = Receipt(kind, request.fields, fields[37], fields.get(38, ""), fields[13])
            if kind in COUNTED:
                self.batch.book(receipt)
            if kind in _VOIDS and request.receipt is not None:
                request.receipt.voided = True
            return receipt
        return None

    def _signed_on(self, fields: Fields) -> None:
        try:
            keys = unwrap_working_keys(self.terminal.algorithm, self.terminal.tmk, fields.get(62, b""))
        except CheckValueError as error:
            raise UnusableAnswerError(UNUSABLE, str(error)) from error
        batch_no = int(fields[60][2:8])
        if batch_no != self.batch_no and self.batch_no:
            self._forget_batch()
        self.batch_no = batch_no
        self.pin_pad = PinPad(self.terminal, keys)
        self.must_sign_on = False

    def _uploaded(self, request: Request, answer: bytes) -> None:
        if not answers_upload(request.fields[62], answer):
            raise UnusableAnswerError(UNUSABLE, "field 62 does not answer the records sent")
        if request is self._uploading:  # records sent once more were counted when they were first taken
            self.batch.settle_records(request.fields[62], answer)
            self._uploading = None
