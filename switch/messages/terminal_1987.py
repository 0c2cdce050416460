"""The dialect of terminals: ISO 8583:1987 in packed BCD, 64 fields, TPDU and six-byte header (docs/iso8583.md)."""

from collections.abc import Mapping
from types import MappingProxyType

from switch.messages.kinds import AN, AN_LL, AN_LLL, ANS, ANS_LLL, B_LLL, N_LL, N_LLL, NR, Z_LL, Z_LLL, B, N
from switch.messages.spec import FieldSpec, Secret, field_table

BODY_BYTES_MAX = 2048  # what LEN may say
TPDU_BYTES = 5
HEADER_BYTES = 6
MTI_AT = TPDU_BYTES + HEADER_BYTES
BITMAP_AT = MTI_AT + 2
FIELDS_AT = BITMAP_AT + 8  # also the shortest body
TPDU_IDENTIFIER = 0x60
MAC_BYTES = 8

FIELDS = field_table(
    FieldSpec(2, "primary account number", "主賬號", N_LL, 19, Secret.PAN),
    FieldSpec(3, "processing code", "交易處理碼", N, 6),
    FieldSpec(4, "amount", "交易金額", N, 12),  # fen
    FieldSpec(11, "system trace", "受卡方系統跟蹤號", N, 6),
    FieldSpec(12, "local time", "本地時間", N, 6),
    FieldSpec(13, "local date", "本地日期", N, 4),
    FieldSpec(14, "expiry", "卡有效期", N, 4),
    FieldSpec(15, "settlement date", "清算日期", N, 4),
    FieldSpec(22, "entry mode", "服務點輸入方式", N, 3),
    FieldSpec(23, "card sequence", "卡片序列號", NR, 3),
    FieldSpec(25, "condition code", "服務點條件碼", N, 2),
    FieldSpec(26, "PIN capture code", "服務點PIN獲取碼", N, 2),
    FieldSpec(32, "acquirer", "受理機構", N_LL, 11),
    FieldSpec(35, "track 2", "二磁道數據", Z_LL, 37, Secret.HIDDEN),
    FieldSpec(36, "track 3", "三磁道數據", Z_LLL, 104, Secret.HIDDEN),
    FieldSpec(37, "retrieval reference", "檢索參考號", AN, 12),
    FieldSpec(38, "authorisation code", "授權碼", AN, 6),
    FieldSpec(39, "response code", "應答碼", AN, 2),
    FieldSpec(41, "terminal id", "終端號", ANS, 8),
    FieldSpec(42, "merchant id", "商戶號", ANS, 15),
    FieldSpec(44, "additional response", "附加響應數據", AN_LL, 25),
    FieldSpec(48, "additional data", "附加數據", N_LLL, 322, Secret.PARTS),
    FieldSpec(49, "currency", "交易貨幣", AN, 3),
    FieldSpec(52, "PIN block", "個人標識碼數據", B, 8, Secret.HIDDEN),
    FieldSpec(53, "security control", "安全控制信息", N, 16),
    FieldSpec(54, "balances", "附加金額", AN_LLL, 40),
    FieldSpec(55, "IC and e-purse data", "IC卡數據域", B_LLL, 255, Secret.PARTS),
    FieldSpec(60, "custom 60", "自定義域60", N_LLL, 17),
    FieldSpec(61, "original transaction", "原始信息", N_LLL, 29),
    FieldSpec(62, "custom 62", "自定義域62", B_LLL, 512, Secret.PARTS),
    FieldSpec(63, "custom 63", "自定義域63", ANS_LLL, 163),
    FieldSpec(64, "MAC", "報文鑒別碼", B, MAC_BYTES),
)

REQUEST_MTIS = ("0100", "0200", "0220", "0320", "0400", "0500", "0800", "0820")
ANSWER_MTI: Mapping[str, str] = MappingProxyType(
    {mti: f"{mti[:2]}{int(mti[2]) + 1}0" for mti in REQUEST_MTIS}
)
MTI_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "0100": ("authorisation request", "授權請求"),
        "0110": ("authorisation answer", "授權應答"),
        "0200": ("financial request", "金融交易請求"),
        "0210": ("financial answer", "金融交易應答"),
        "0220": ("financial advice", "金融通知"),
        "0230": ("financial advice answer", "金融通知應答"),
        "0320": ("upload", "上送請求"),
        "0330": ("upload answer", "上送應答"),
        "0400": ("reversal", "沖正請求"),
        "0410": ("reversal answer", "沖正應答"),
        "0500": ("batch settlement", "批結算請求"),
        "0510": ("batch settlement answer", "批結算應答"),
        "0800": ("network management request", "網絡管理請求"),
        "0810": ("network management answer", "網絡管理應答"),
        "0820": ("network management advice", "網絡管理通知"),
        "0830": ("network management advice answer", "網絡管理通知應答"),
    }
)
assert MTI_NAMES.keys() == set(ANSWER_MTI) | set(ANSWER_MTI.values())

MTI_OF_BYTES: Mapping[bytes, str] = MappingProxyType({bytes.fromhex(mti): mti for mti in MTI_NAMES})
WITHOUT_TRACE = frozenset({"0820", "0830"})  # an echo carries no field 11
