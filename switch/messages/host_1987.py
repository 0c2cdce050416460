"""The dialect of hosts: ISO 8583:1987 with 128 fields, in two encodings of one table (docs/host-link.md).

`ASCII`: a character per digit, lengths in ASCII digits. `BCD`: two digits per byte, lengths in BCD. In both the bitmap
and the fields of kind `b` are bytes as they are, and every message has a secondary bitmap, since its MAC is field 128.
"""

from collections.abc import Mapping
from types import MappingProxyType

from switch.messages import kinds
from switch.messages.dialect import Dialect
from switch.messages.kinds import FieldKind
from switch.messages.spec import FieldSpec, Secret, field_table

MAC_BYTES = 8
MAC_FIELD = 128

_ASCII_KINDS: Mapping[str, FieldKind] = MappingProxyType(
    {
        "n": kinds.N_ASCII,
        "nr": kinds.N_ASCII,
        "n LL": kinds.N_LL_ASCII,
        "z LL": kinds.Z_LL_ASCII,
        "z LLL": kinds.Z_LLL_ASCII,
        "an": kinds.AN,
        "ans": kinds.ANS,
        "ans LL": kinds.PRINTABLE_LL_ASCII,
        "an LLL": kinds.AN_LLL_ASCII,
        "ans LLL": kinds.ANS_LLL_ASCII,
        "b": kinds.B,
        "b LLL": kinds.B_LLL_ASCII,
    }
)
_BCD_KINDS: Mapping[str, FieldKind] = MappingProxyType(
    {
        "n": kinds.N,
        "nr": kinds.NR,
        "n LL": kinds.N_LL,
        "z LL": kinds.Z_LL,
        "z LLL": kinds.Z_LLL,
        "an": kinds.AN,
        "ans": kinds.ANS,
        "ans LL": kinds.PRINTABLE_LL,
        "an LLL": kinds.AN_LLL,
        "ans LLL": kinds.ANS_LLL,
        "b": kinds.B,
        "b LLL": kinds.B_LLL,
    }
)
assert _ASCII_KINDS.keys() == _BCD_KINDS.keys()

_TABLE: tuple[tuple[int, str, str, str, int, Secret], ...] = (
    (2, "primary account number", "主賬號", "n LL", 19, Secret.PAN),
    (3, "processing code", "交易處理碼", "n", 6, Secret.NO),
    (4, "amount", "交易金額", "n", 12, Secret.NO),  # fen
    (7, "transmission date and time", "交易傳輸時間", "n", 10, Secret.NO),  # MMDDhhmmss
    (11, "system trace", "系統跟蹤號", "n", 6, Secret.NO),
    (12, "local time", "受卡方所在地時間", "n", 6, Secret.NO),
    (13, "local date", "受卡方所在地日期", "n", 4, Secret.NO),
    (14, "expiry", "卡有效期", "n", 4, Secret.NO),
    (15, "settlement date", "清算日期", "n", 4, Secret.NO),
    (18, "merchant type", "商戶類型", "n", 4, Secret.NO),
    (22, "entry mode", "服務點輸入方式碼", "n", 3, Secret.NO),
    (23, "card sequence", "卡序列號", "nr", 3, Secret.NO),
    (25, "condition code", "服務點條件碼", "n", 2, Secret.NO),
    (26, "PIN capture code", "服務點PIN獲取碼", "n", 2, Secret.NO),
    (32, "acquiring institution", "代理機構標識碼", "n LL", 11, Secret.NO),
    (33, "forwarding institution", "發送機構標識碼", "n LL", 11, Secret.NO),
    (35, "track 2", "第二磁道數據", "z LL", 37, Secret.HIDDEN),
    (36, "track 3", "第三磁道數據", "z LLL", 104, Secret.HIDDEN),
    (37, "retrieval reference", "檢索參考號", "an", 12, Secret.NO),
    (38, "authorisation code", "授權標識應答碼", "an", 6, Secret.NO),
    (39, "response code", "應答碼", "an", 2, Secret.NO),
    (41, "terminal id", "受卡機終端標識碼", "ans", 8, Secret.NO),
    (42, "merchant id", "受卡方標識碼", "ans", 15, Secret.NO),
    (44, "additional response", "附加響應數據", "ans LL", 25, Secret.NO),
    (48, "additional data", "附加數據", "ans LLL", 512, Secret.PARTS),
    (49, "currency", "交易貨幣代碼", "an", 3, Secret.NO),
    (52, "PIN block", "個人標識碼數據", "b", 8, Secret.HIDDEN),
    (53, "security control", "安全控制信息", "n", 16, Secret.NO),
    (54, "balances", "附加金額", "an LLL", 120, Secret.NO),
    (55, "IC data", "IC卡數據域", "b LLL", 255, Secret.HIDDEN),
    (62, "working keys", "工作密鑰", "b LLL", 512, Secret.HIDDEN),
    (70, "network management code", "網絡管理信息碼", "n", 3, Secret.NO),
    (90, "original data elements", "原始數據元", "n", 42, Secret.NO),
    (100, "receiving institution", "接收機構標識碼", "n LL", 11, Secret.NO),
    (102, "account", "賬戶標識1", "ans LL", 28, Secret.HIDDEN),
    (MAC_FIELD, "MAC", "報文鑒別碼", "b", MAC_BYTES, Secret.NO),
)

REQUEST_MTIS = ("0100", "0200", "0220", "0400", "0420", "0800")
ANSWER_MTI: Mapping[str, str] = MappingProxyType(
    {mti: f"{mti[:2]}{int(mti[2]) + 1}0" for mti in REQUEST_MTIS}
)
REQUEST_OF: Mapping[str, str] = MappingProxyType({answer: mti for mti, answer in ANSWER_MTI.items()})
_MTIS = tuple(sorted({*ANSWER_MTI, *REQUEST_OF}))


def _fields(by_label: Mapping[str, FieldKind]) -> Mapping[int, FieldSpec]:
    return field_table(
        *(
            FieldSpec(number, name, chinese, by_label[label], size, secret)
            for number, name, chinese, label, size, secret in _TABLE
        ),
        last=128,
    )


_TOLD = frozenset({7, 11, 32, 70})

ASCII = Dialect(
    "ascii",
    _fields(_ASCII_KINDS),
    MappingProxyType({mti.encode(): mti for mti in _MTIS}),
    4,
    MAC_FIELD,
    _TOLD,
)
BCD = Dialect(
    "bcd",
    _fields(_BCD_KINDS),
    MappingProxyType({bytes.fromhex(mti): mti for mti in _MTIS}),
    2,
    MAC_FIELD,
    _TOLD,
)
DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in (ASCII, BCD)})

# Field 70
SIGN_ON = "001"
SIGN_OFF = "002"
KEY_CHANGE = "101"
ECHO = "301"
NETWORK_CODES = (SIGN_ON, SIGN_OFF, KEY_CHANGE, ECHO)
