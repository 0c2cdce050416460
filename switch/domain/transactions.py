"""What a terminal can ask, as typed requests. Outside `messages/` nobody sees field numbers, only these.

NamedTuples: immutable like a frozen dataclass and made in a fifth of the time, which counts at 20 000 requests a second.
"""

from enum import Enum, IntEnum
from typing import NamedTuple

from switch.domain.identifiers import CardNumber, mask_asn
from switch.domain.money import Fen


class AccountKind(IntEnum):
    """Account types of field 3, digits AA and BB."""

    ONLINE = 10  # 聯機賬戶; 00 means this too
    BANK = 20  # bound bank card 綁定銀行卡
    MEDICAL = 40  # 醫保賬戶
    PURSE = 50  # 脫機賬戶


class Kind(IntEnum):
    """Every kind of journal entry; the numbers are stored, so they are never reused."""

    PURCHASE = 1
    BALANCE = 2
    VOID = 3
    REFUND = 4
    REVERSAL = 5
    PRE_AUTHORISATION = 6
    PRE_AUTHORISATION_VOID = 7
    COMPLETION = 8
    COMPLETION_VOID = 9
    COMPLETION_ADVICE = 10
    LOAD = 11
    LOAD_CONFIRM = 12
    CREDIT_ADJUSTMENT = 14  # 貸記調整; these four are decided by people in a case, never asked by a terminal
    DEBIT_ADJUSTMENT = 15  # 請款
    CHARGEBACK = 16  # 退單
    REPRESENTMENT = 17  # 再請款
    UPLOAD = 20
    SETTLEMENT = 21
    DETAIL_UPLOAD = 22
    BATCH_END = 23
    REFUSED = 30  # a request that could not become one of the above (30, 40, 57) or has no way to go (15, 57, 58, 92)


class RequestClass(IntEnum):
    """Part of a request's key: a reversal shares the trace number of its original."""

    FINANCIAL = 0
    REVERSAL = 1


class PinFormat(Enum):
    """How the clear PIN block is laid out (field 53, digits 1 and 2)."""

    ISO_0 = "3DES, with PAN (ISO 9564-1 format 0)"
    NO_PAN = "3DES, without PAN"
    SM4_PAN = "SM4, with PAN, 16 bytes"


class PinEntry(NamedTuple):
    """An encrypted PIN block as it came; shows nothing of itself."""

    block: bytes
    format: PinFormat

    def __repr__(self) -> str:
        return f"PinEntry({self.format.name})"


class Original(NamedTuple):
    """Field 61: which transaction is meant. The year is not on the wire."""

    batch_no: int
    stan: int
    month: int
    day: int


class LoadSource(Enum):
    """Whose money goes into a load 圈存."""

    BOUND_BANK = "45"  # designated 指定賬戶, 60xxxx
    ONLINE = "45 AA=10"  # designated from the own online account, 601000
    OTHER_BANK = "47"  # non-designated 非指定賬戶, 62xxxx
    CASH = "46"  # 現金充值, 63xxxx


class PurseLoadData(NamedTuple):
    """Field 55 of a purse load: what INITIALIZE FOR LOAD returned. Amounts in fen."""

    asn: str  # 20 digits
    issuer_id: bytes  # 8
    key_index: int
    key_version: int
    algorithm_id: int
    balance_fen: Fen
    online_atc: int
    card_random: bytes  # 4
    mac1: bytes  # 4
    terminal_no: bytes  # 6, PSAM number

    def __repr__(self) -> str:  # the ASN holds the card number
        return f"PurseLoadData(card={mask_asn(self.asn)}, online_atc={self.online_atc}, balance_fen={self.balance_fen})"


class PurseConfirmData(NamedTuple):
    """Field 55 of a load confirm. `tac` and `balance_after_fen` are None when the card was gone after CREDIT."""

    asn: str
    online_atc: int
    terminal_no: bytes
    host_date: bytes
    host_time: bytes
    tac: bytes | None
    balance_after_fen: Fen | None
    status_word: int

    def __repr__(self) -> str:
        return f"PurseConfirmData(card={mask_asn(self.asn)}, online_atc={self.online_atc}, status={self.status_word:04X})"


class PurseReversalData(NamedTuple):
    """Field 55 of a load reversal, when the card could still be read."""

    asn: str
    balance_fen: Fen
    online_atc: int
    status_word: int

    def __repr__(self) -> str:
        return f"PurseReversalData(card={mask_asn(self.asn)}, online_atc={self.online_atc}, status={self.status_word:04X})"


class Purchase(NamedTuple):
    """消費, 0200 00AA00."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    pin: PinEntry | None
    entry_mode: str
    card_sequence: str = ""
    expiry: str = ""


class Balance(NamedTuple):
    """餘額查詢, 0200 31AA00."""

    card: CardNumber
    account: AccountKind
    pin: PinEntry | None
    entry_mode: str


class Void(NamedTuple):
    """消費撤銷, 0200 20AA00: the whole of a purchase in the same open batch."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    original: Original
    rrn: str
    auth_code: str
    entry_mode: str


class Refund(NamedTuple):
    """退貨, 0220 20AA00: all or part of a purchase, any batch."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    original: Original
    rrn: str
    entry_mode: str


class Reversal(NamedTuple):
    """沖正, 0400: undo a request whose answer did not come or could not be used. Reason: 98, 96, A0 or 06."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    original: Original
    of: Kind  # what F3, F25 and 60.1 say the original was
    reason: str
    entry_mode: str
    processing_code: str
    purse: PurseReversalData | None = None


class PreAuthorisation(NamedTuple):
    """預授權, 0100 03AA00."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    pin: PinEntry | None
    entry_mode: str


class PreAuthorisationVoid(NamedTuple):
    """預授權撤銷, 0100 20AA00."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    original: Original
    auth_code: str
    entry_mode: str


class Completion(NamedTuple):
    """預授權完成, 0200 00AA00 with F25 06; `advice` when it came as 0220."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    original: Original
    auth_code: str
    entry_mode: str
    advice: bool


class CompletionVoid(NamedTuple):
    """預授權完成撤銷, 0200 20AA00 with F25 06."""

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    original: Original
    rrn: str
    auth_code: str
    entry_mode: str


class Load(NamedTuple):
    """圈存 to the purse (`purse` given) or 充值 to the online account (`purse` None)."""

    card: CardNumber
    source: LoadSource
    amount_fen: Fen
    pin: PinEntry | None
    purse: PurseLoadData | None
    entry_mode: str
    track2: str = ""
    track3: str = ""
    tracks_encrypted: bool = False  # under the terminal's track key TDK
    expiry: str = ""

    def __repr__(self) -> str:  # tracks are never printed
        return f"Load(card={self.card}, source={self.source.name}, amount_fen={self.amount_fen})"


class LoadConfirm(NamedTuple):
    """圈存確認, 0220."""

    card: CardNumber
    source: LoadSource
    amount_fen: Fen
    original: Original
    rrn: str
    purse: PurseConfirmData | None
    entry_mode: str


class Refused(NamedTuple):
    """A request that no rule could ever approve: the answer is settled by its form (14, 30, 40, 57) or its route (15, 57, 58, 92)."""

    card: CardNumber | None
    amount_fen: Fen
    answer: str
    rule: str


class OfflineUpload(NamedTuple):
    """脫機上送, 0320/203: one to five raw EPR1 records of 96 bytes."""

    records: tuple[bytes, ...]

    def __repr__(self) -> str:  # a record holds a card number
        return f"OfflineUpload({len(self.records)} records)"


class GroupTotals(NamedTuple):
    """One group of field 48. Amounts in fen; counts stop at 999."""

    debit_fen: Fen
    debit_count: int
    credit_fen: Fen
    credit_count: int


class Settlement(NamedTuple):
    """批結算, 0500: group 1 online and medical accounts, group 2 purse."""

    accounts: GroupTotals
    purse: GroupTotals


class Detail(NamedTuple):
    """One transaction of a detail upload."""

    card_class: str
    stan: int
    card_number: str  # 20 characters as sent, right aligned, zero filled
    amount_fen: Fen

    def __repr__(self) -> str:
        return f"Detail(stan={self.stan:06d}, amount_fen={self.amount_fen})"


class DetailUpload(NamedTuple):
    """批上送, 0320/201: at most eight details."""

    details: tuple[Detail, ...]


class BatchEnd(NamedTuple):
    """0320/207 (balanced) or 0320/202: closes the batch."""

    balanced: bool
    uploaded: int  # offline records for 207, all details for 202


class SignOn(NamedTuple):
    """簽到, 0800 with 60.3 = 001, 003, 004, 005 or 006."""

    mode: str
    serial_number: str
    operator: str

    @property
    def with_track_key(self) -> bool:
        """Whether a track key TDK is wanted too."""
        return self.mode in ("004", "006")

    @property
    def sm4(self) -> bool:
        """Whether SM4 working keys are wanted."""
        return self.mode in ("005", "006")


class MasterKeyDownload(NamedTuple):
    """0800/811: the terminal's SM2 public key, 65 bytes, and its serial number."""

    public_key: bytes
    serial_number: str


class MasterKeyConfirm(NamedTuple):
    """0800/812: the check value of the TMK that arrived."""

    kcv: bytes


class Echo(NamedTuple):
    """回響測試, 0820/301."""


class SignOff(NamedTuple):
    """簽退, 0820/002."""


class StatusUpload(NamedTuple):
    """0820/362: the values in force at the terminal, by two-digit tag."""

    values: tuple[tuple[str, str], ...]


class ParameterDownload(NamedTuple):
    """0800/360 (block wanted) or 361 (`block` None: download ended)."""

    block: int | None


class HotListDownload(NamedTuple):
    """黑名單下載, 0800/390 or 391 (`block` None: download ended)."""

    mode: str  # F or I; empty for 391
    held_version: int
    block: int | None


CardRequest = (
    Purchase
    | Balance
    | Void
    | Refund
    | Reversal
    | PreAuthorisation
    | PreAuthorisationVoid
    | Completion
    | CompletionVoid
    | Load
    | LoadConfirm
    | Refused
)
BatchRequest = OfflineUpload | Settlement | DetailUpload | BatchEnd
ManagementRequest = (
    SignOn
    | MasterKeyDownload
    | MasterKeyConfirm
    | Echo
    | SignOff
    | StatusUpload
    | ParameterDownload
    | HotListDownload
)
Request = CardRequest | BatchRequest | ManagementRequest
