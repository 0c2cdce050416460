"""What lies inside fields 3, 22, 48, 53, 54, 60, 61, 62 and 63, and the closed lists of values, as tables.

Mapping reads by these tables and `describe` explains by them.
"""

from collections.abc import Mapping
from types import MappingProxyType

from switch.domain.transactions import AccountKind
from switch.messages.spec import Part, Secret, TagSpec, tag_table, total

TRANSACTION_CODES: Mapping[str, str] = MappingProxyType(
    {
        "00": "purchase, completion 消費、預授權完成",
        "01": "cash withdrawal 取現 (refused)",
        "03": "pre-authorisation 預授權",
        "20": "void, refund 撤銷、退貨",
        "21": "deposit 存款 (not supported)",
        "31": "balance inquiry 餘額查詢",
        "60": "designated load 指定賬戶圈存",
        "62": "non-designated load 非指定賬戶圈存",
        "63": "cash load 現金充值",
    }
)
ACCOUNT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "00": "default 缺省",
        "10": "online account 聯機賬戶",
        "20": "bound bank account 綁定銀行卡",
        "40": "medical account 醫保賬戶",
        "50": "e-purse 脫機賬戶",
    }
)
assert {f"{int(kind)}" for kind in AccountKind} == ACCOUNT_TYPES.keys() - {"00"}
FIELD_3 = (
    Part("transaction", "交易類型", 2, TRANSACTION_CODES),
    Part("source account", "轉出賬戶類型", 2, ACCOUNT_TYPES),
    Part("target account", "轉入賬戶類型", 2, ACCOUNT_TYPES),
)

FIELD_22 = (
    Part(
        "card entry",
        "卡號輸入方式",
        2,
        MappingProxyType(
            {
                "01": "keyed 手輸",
                "02": "stripe 磁條",
                "03": "code 掃碼",
                "05": "contact IC 接觸IC",
                "07": "contactless 非接",
            }
        ),
    ),
    Part(
        "PIN entry",
        "PIN輸入",
        1,
        MappingProxyType({"0": "unknown 未知", "1": "PIN present 有密", "2": "no PIN 無密"}),
    ),
)
FIELD_25_MEANINGS: Mapping[str, str] = MappingProxyType(
    {"00": "normal 正常", "06": "pre-authorisation 預授權", "91": "e-purse load 圈存"}
)

FIELD_53 = (
    Part(
        "PIN block",
        "PIN格式",
        1,
        MappingProxyType({"0": "none 無", "1": "without PAN 不帶主賬號", "2": "with PAN 帶主賬號"}),
    ),
    Part(
        "cipher",
        "加密算法",
        1,
        MappingProxyType({"0": "single DES", "6": "double-length 3DES", "3": "SM4 國密"}),
    ),
    Part("tracks", "磁道", 1, MappingProxyType({"0": "clear 明文", "1": "encrypted under TDK 密文"})),
    Part("reserved", "保留", 13, MappingProxyType({"0" * 13: "zero"})),
)

BALANCE_ENTRY = (  # field 54 repeats it
    Part("account type", "賬戶類型", 2, ACCOUNT_TYPES),
    Part(
        "amount type", "金額類型", 2, MappingProxyType({"01": "ledger 賬面餘額", "02": "available 可用餘額"})
    ),
    Part("currency", "貨幣", 3, MappingProxyType({"156": "CNY"})),
    Part("sign", "符號", 1, MappingProxyType({"C": "credit 貸", "D": "debit 借"})),
    Part("amount", "金額", 12),
)

TRANSACTION_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "00": "administration 管理",
        "01": "balance 餘額查詢",
        "10": "pre-authorisation 預授權",
        "11": "pre-authorisation void 預授權撤銷",
        "20": "completion 預授權完成",
        "21": "completion void 預授權完成撤銷",
        "22": "purchase 消費",
        "23": "purchase void 消費撤銷",
        "24": "completion advice 預授權完成通知",
        "25": "refund 退貨",
        "36": "offline purse purchase 脫機消費 (records only)",
        "45": "designated load 指定賬戶圈存",
        "46": "cash load 現金充值",
        "47": "non-designated load 非指定賬戶圈存",
        "51": "cash-load void 現金充值撤銷 (not supported)",
    }
)
NETWORK_CODES: Mapping[str, str] = MappingProxyType(
    {
        "000": "financial message 金融交易",
        "001": "sign-on, single DES 簽到",
        "002": "sign-off 簽退",
        "003": "sign-on, double-length 3DES 簽到",
        "004": "sign-on, 3DES with track key 簽到",
        "005": "sign-on, SM4 簽到",
        "006": "sign-on, SM4 with track key 簽到",
        "201": "settlement, detail upload 批結算、批上送",
        "202": "batch end after an unbalanced settlement 批上送結束(不平)",
        "203": "offline record upload 脫機上送",
        "207": "batch end after a balanced settlement 批上送結束(平)",
        "301": "echo test 回響測試",
        "360": "parameter download 參數下載",
        "361": "parameter download ended 參數下載結束",
        "362": "terminal status upload 狀態上送",
        "370": "public key download 公鑰下載 (not supported)",
        "371": "public key download ended 公鑰下載結束 (not supported)",
        "372": "public key query 公鑰查詢 (not supported)",
        "380": "IC parameter download IC卡參數下載 (not supported)",
        "381": "IC parameter download ended IC卡參數下載結束 (not supported)",
        "382": "IC parameter query IC卡參數查詢 (not supported)",
        "390": "hot list download 黑名單下載",
        "391": "hot list download ended 黑名單下載結束",
        "811": "terminal master key download 終端主密鑰下載",
        "812": "terminal master key confirm 終端主密鑰確認",
    }
)
FIELD_60_SHORT = (  # administrative messages
    Part("transaction type", "交易類型碼", 2, TRANSACTION_TYPES),
    Part("batch number", "批次號", 6),
    Part("network management code", "網絡管理信息碼", 3, NETWORK_CODES),
)
FIELD_60_LONG = (  # financial messages
    *FIELD_60_SHORT,
    Part(
        "terminal read capability",
        "終端讀取能力",
        1,
        MappingProxyType(
            {"2": "stripe 磁條", "5": "contact IC 接觸IC", "6": "contact and contactless 接觸及非接"}
        ),
    ),
    Part("IC condition", "IC卡條件代碼", 1, MappingProxyType({"0": "none 未使用"})),
)

FIELD_61 = (
    Part("original batch", "原始批次號", 6),
    Part("original trace", "原始流水號", 6),
    Part("original date", "原始交易日期", 4),
)
REVERSAL_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "98": "no answer in time 超時",
        "96": "answer could not be processed 應答無法處理",
        "A0": "MAC of the answer wrong 應答MAC錯",
        "06": "other 其他",
    }
)

SETTLEMENT_RESULTS: Mapping[str, str] = MappingProxyType(
    {"0": "request 請求", "1": "balanced 平", "2": "unbalanced 不平", "3": "could not decide 無法判定"}
)
SETTLEMENT_GROUP = (  # field 48 of 0500 has two: online and medical accounts, then the purse
    Part("debit amount", "借記總金額", 12),
    Part("debit count", "借記總筆數", 3),
    Part("credit amount", "貸記總金額", 12),
    Part("credit count", "貸記總筆數", 3),
    Part("result", "對賬結果", 1, SETTLEMENT_RESULTS),
)
SETTLEMENT_DIGITS = 2 * total(SETTLEMENT_GROUP)
DETAIL = (  # field 48 of a detail upload: count n2, then up to eight
    Part("card class", "卡類別", 2),
    Part("trace", "流水號", 6),
    Part("card number", "卡號", 20, secret=Secret.PAN),
    Part("amount", "金額", 12),
)
DETAILS_MAX = 8
BATCH_END = (Part("records uploaded", "上送總筆數", 4),)

RECORD_BYTES = 96  # one offline purse record EPR1
RECORDS_MAX = 5
UPLOAD_RESULT_BYTES = 6  # terminal record serial 4, result 2 ASCII
HOT_LIST_ENTRY_BYTES = 12
HOT_LIST_ENTRIES_MAX = 40
HOT_LIST_REQUEST = (
    Part("list mode", "名單方式", 1, MappingProxyType({"F": "full 全量", "I": "incremental 增量"})),
    Part("held version", "持有版本", 8),
    Part("block wanted", "請求塊號", 4),
)
HOT_LIST_ANSWER = (
    Part("more", "後續標誌", 1, MappingProxyType({"1": "more blocks 還有", "0": "last block 最後一塊"})),
    HOT_LIST_REQUEST[0],
    Part("base version", "基準版本", 8),
    Part("new version", "新版本", 8),
    Part("block", "塊號", 4),
    Part("entries", "條目數", 3),
)
PARAMETER_BLOCK = (Part("block wanted", "請求塊號", 4),)
PARAMETERS: Mapping[str, Part] = MappingProxyType(
    {
        "12": Part("time-out, seconds", "超時時間", 2),
        "13": Part("resend count", "重發次數", 1),
        "26": Part("purse maximum balance, fen", "電子錢包餘額上限", 8),
        "27": Part("cut-off hhmmss", "日切時間", 6),
        "28": Part("single offline purchase limit, fen", "脫機單筆限額", 8),
        "29": Part("records per upload", "每次上送筆數", 1),
        "30": Part("maximum hot list age, days", "黑名單有效天數", 2),
        "31": Part("hot list version", "黑名單版本", 8),
        "32": Part("unsent record count", "未上送筆數", 6),
        "33": Part("city list version", "白名單版本", 8),
        "34": Part("parameter set version", "參數版本", 8),
        "35": Part("terminal clock YYYYMMDDhhmmss", "終端時鐘", 14),
        "36": Part("list refused: which, why", "名單拒收原因", 2),
    }
)
STATUS_ONLY = frozenset({"31", "32", "33", "34", "35", "36"})  # reported by a terminal, never sent to one
SERIAL_MARK = b"Sequence No"
PUBLIC_KEY_BYTES = 65
WORKING_KEY_BYTES = 16
KCV_BYTES = 4

TAGS: Mapping[str, TagSpec] = tag_table(
    TagSpec("DF11", "application serial number", "應用序列號", 10, digits=True, secret=Secret.PAN),
    TagSpec("DF12", "issuer id", "發卡機構標識", 8),
    TagSpec("DF13", "purse balance", "電子錢包餘額", 4),
    TagSpec("DF14", "online ATC", "聯機交易序號", 2),
    TagSpec("DF15", "load key version, algorithm", "圈存密鑰版本、算法", 2),
    TagSpec("DF16", "card random", "卡片隨機數", 4),
    TagSpec("DF17", "MAC1", "MAC1", 4),
    TagSpec("DF18", "terminal number on the card", "終端機編號", 6),
    TagSpec("DF19", "transaction type", "交易類型標識", 1),
    TagSpec("DF1A", "key index", "密鑰索引", 1),
    TagSpec("DF21", "host date", "主機日期", 4, digits=True),
    TagSpec("DF22", "host time", "主機時間", 3, digits=True),
    TagSpec("DF23", "MAC2", "MAC2", 4),
    TagSpec("DF31", "TAC", "交易驗證碼", 4),
    TagSpec("DF32", "balance after load", "圈存後餘額", 4),
    TagSpec("DF33", "final status word", "卡片狀態字", 2),
    TagSpec("DF51", "SM4 PIN block", "SM4密碼塊", 16, secret=Secret.HIDDEN),
)
LOAD_TAGS = ("DF11", "DF12", "DF1A", "DF15", "DF13", "DF14", "DF16", "DF17", "DF18", "DF19")
CONFIRM_TAGS = ("DF11", "DF14", "DF18", "DF19", "DF21", "DF22", "DF33")  # DF31 and DF32 unless DF33 is 0000
LOAD_REVERSAL_TAGS = ("DF11", "DF13", "DF14", "DF33")
assert {*LOAD_TAGS, *CONFIRM_TAGS, *LOAD_REVERSAL_TAGS} <= TAGS.keys()
assert total(FIELD_60_SHORT) == 11
assert total(FIELD_60_LONG) == 13
assert total(FIELD_61) == 16
assert SETTLEMENT_DIGITS == 62
assert 2 + DETAILS_MAX * total(DETAIL) == 322
assert total(BALANCE_ENTRY) == 20

RESPONSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "00": ("approved", "交易成功"),
        "01": ("refer to issuer", "請聯繫發卡方"),
        "03": ("invalid merchant", "無效商戶"),
        "04": ("retain card", "沒收卡"),
        "05": ("do not honour", "發卡方拒絕"),
        "12": ("invalid transaction", "無效交易"),
        "13": ("invalid amount", "無效金額"),
        "14": ("invalid card number", "無效卡號"),
        "15": ("no such issuer", "無此發卡方"),
        "21": ("card not initialised", "卡未啟用"),
        "22": ("suspected malfunction", "懷疑操作有誤"),
        "25": ("original not found", "找不到原交易"),
        "30": ("format error", "報文格式錯誤"),
        "34": ("suspected fraud", "懷疑作弊"),
        "38": ("PIN tries exceeded, bank", "密碼次數超限(銀行)"),
        "40": ("function not supported", "不支持的功能"),
        "41": ("lost card", "掛失卡"),
        "43": ("stolen card", "被竊卡"),
        "51": ("insufficient funds", "餘額不足"),
        "54": ("expired card", "過期卡"),
        "55": ("wrong PIN", "密碼錯"),
        "57": ("not permitted to cardholder", "不允許持卡人交易"),
        "58": ("not permitted to terminal", "不允許終端交易"),
        "61": ("amount limit exceeded", "超出金額限制"),
        "62": ("restricted card", "受限制的卡"),
        "64": ("original amount mismatch", "原始金額不符"),
        "65": ("count limit exceeded", "超出次數限制"),
        "68": ("issuer timeout", "發卡方超時"),
        "75": ("PIN tries exceeded", "密碼次數超限"),
        "77": ("sign on again", "請重新簽到"),
        "79": ("upload offline records first", "請先上送脫機交易"),
        "90": ("cut-off in progress", "日切或結算中"),
        "91": ("issuer down", "發卡方不可用"),
        "92": ("no route", "無法路由"),
        "94": ("duplicate transaction", "重複交易"),
        "95": ("settlement unbalanced", "對賬不平"),
        "96": ("system malfunction", "系統故障"),
        "97": ("terminal not registered", "終端未登記"),
        "98": ("no answer from issuer", "發卡方無應答"),
        "99": ("PIN block error", "PIN格式錯"),
        "A0": ("MAC failed", "MAC校驗錯"),
        "A7": ("security processing failed", "安全處理失敗"),
    }
)

OFFLINE_RECORD = (  # what a person wants to know of the 96 bytes: name, Chinese name, offset, bytes, packed BCD?
    ("record kind", "記錄類型", 1, 1, True),
    ("application serial number", "應用序列號", 6, 10, True),
    ("offline ATC", "脫機交易序號", 28, 2, False),
    ("amount", "交易金額", 30, 4, False),
    ("balance before", "交易前餘額", 34, 4, False),
    ("date", "日期", 38, 4, True),
    ("time", "時間", 42, 3, True),
    ("terminal number", "終端機編號", 45, 6, True),
    ("PSAM serial", "PSAM流水號", 51, 4, False),
    ("record serial", "記錄序號", 59, 4, False),
)
OFFLINE_RECORD_ASN = slice(6, 16)
assert all(offset + size <= RECORD_BYTES for _, _, offset, size, _ in OFFLINE_RECORD)
