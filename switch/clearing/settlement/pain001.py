"""The payment order as ISO 20022 pain.001.001.09 (customer credit transfer initiation). Pure: what is ordered goes in, bytes come out.

One message, one payment information block (one execution date, one account that pays), one transaction per payout. All its ids
are ours and known before: a second run gives the same bytes. docs/iso20022.md is the profile that banks get.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from switch.domain.calendar import SHANGHAI

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
TRANSACTIONS_AT_ONCE: Final = 500


class Side(NamedTuple):
    """An account with its holder. bank_code: a BIC, or twelve digits (CNAPS)."""

    name: str
    number: str
    bank_code: str

    def __repr__(self) -> str:
        return f"Side({self.name}, {self.bank_code})"


class Transfer(NamedTuple):
    """One payout. end_to_end_id: its number."""

    end_to_end_id: str
    amount_fen: int
    to: Side
    remittance: str


class Order(NamedTuple):
    """What stands above the transfers. transfer_count, total_fen: of those that follow."""

    order_id: str
    created_at: datetime
    execution_date: date
    payer: Side
    transfer_count: int
    total_fen: int


def amount(fen: int) -> str:
    """An amount as ISO 20022 writes it.

    >>> amount(5), amount(123456)
    ('0.05', '1234.56')
    """
    return f"{fen // 100}.{fen % 100:02d}"


def _agent(bank_code: str) -> str:
    if bank_code.isdecimal():
        inner = f"<ClrSysMmbId><ClrSysId><Cd>CNAPS</Cd></ClrSysId><MmbId>{bank_code}</MmbId></ClrSysMmbId>"
    else:
        inner = f"<BICFI>{bank_code}</BICFI>"
    return f"<FinInstnId>{inner}</FinInstnId>"


def _account(number: str) -> str:
    return f"<Id><Othr><Id>{escape(number)}</Id></Othr></Id>"


def _head(order: Order) -> str:
    created = order.created_at.astimezone(SHANGHAI)
    sums = f"<NbOfTxs>{order.transfer_count}</NbOfTxs><CtrlSum>{amount(order.total_fen)}</CtrlSum>"
    payer = f"<Nm>{escape(order.payer.name)}</Nm>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Document xmlns="{NAMESPACE}"><CstmrCdtTrfInitn>\n'
        f"<GrpHdr><MsgId>{order.order_id}</MsgId><CreDtTm>{created.isoformat(timespec='seconds')}</CreDtTm>{sums}"
        f"<InitgPty>{payer}</InitgPty></GrpHdr>\n"
        f"<PmtInf><PmtInfId>{order.order_id}</PmtInfId><PmtMtd>TRF</PmtMtd><BtchBookg>false</BtchBookg>{sums}"
        f"<ReqdExctnDt><Dt>{order.execution_date.isoformat()}</Dt></ReqdExctnDt><Dbtr>{payer}</Dbtr>"
        f"<DbtrAcct>{_account(order.payer.number)}<Ccy>CNY</Ccy></DbtrAcct><DbtrAgt>{_agent(order.payer.bank_code)}</DbtrAgt>"
        "<ChrgBr>DEBT</ChrgBr>\n"
    )


def _transfer(one: Transfer) -> str:
    return (
        f"<CdtTrfTxInf><PmtId><EndToEndId>{one.end_to_end_id}</EndToEndId></PmtId>"
        f'<Amt><InstdAmt Ccy="CNY">{amount(one.amount_fen)}</InstdAmt></Amt><CdtrAgt>{_agent(one.to.bank_code)}</CdtrAgt>'
        f"<Cdtr><Nm>{escape(one.to.name)}</Nm></Cdtr><CdtrAcct>{_account(one.to.number)}</CdtrAcct>"
        f"<RmtInf><Ustrd>{escape(one.remittance)}</Ustrd></RmtInf></CdtTrfTxInf>\n"
    )


def write_order(order: Order, transfers: Iterable[Transfer]) -> Iterator[bytes]:
    """The file in blocks. transfers: as many, and of as much, as the order says."""
    yield _head(order).encode()
    block: list[str] = []
    count = total_fen = 0
    for one in transfers:
        block.append(_transfer(one))
        count += 1
        total_fen += one.amount_fen
        if len(block) == TRANSACTIONS_AT_ONCE:
            yield "".join(block).encode()
            block.clear()
    assert (count, total_fen) == (order.transfer_count, order.total_fen), (
        "the header must count the transfers"
    )
    block.append("</PmtInf>\n</CstmrCdtTrfInitn></Document>\n")
    yield "".join(block).encode()
