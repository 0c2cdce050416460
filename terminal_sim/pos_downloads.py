"""What a terminal fetches and reports: parameters and hot list block by block, and its status. The conversation only; a client sends and waits."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from switch.domain.errors import FormatError
from switch.messages.hot_list import FULL, INCREMENT, HotListBlock, applies, apply_blocks, read_block
from switch.messages.parameters import parameter_text, read_parameter_block
from terminal_sim.pos_answers import UNUSABLE, Answer, UnusableAnswerError
from terminal_sim.pos_client import PosClient, RefusedError

BLOCKS_MAX: Final = 10_000  # four digits of block number
BEGINNINGS_MAX: Final = 4  # a list that changes under the download is begun anew


class Holdings:
    """What one terminal works by. A download counts when it is whole: until then the old one stays in force.

    more: further tags of its status, such as those of lists by topic.
    """

    def __init__(self, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self.more = more
        self.parameters: dict[str, str] = {}
        self.hot_list: dict[str, int] = {}
        self.hot_list_version = 0

    def status(self, unsent: int) -> bytes:
        """Field 62 of a status upload."""
        said = self.parameters | {
            "31": parameter_text("31", self.hot_list_version),
            "32": parameter_text("32", unsent),
        }
        said |= self.more
        return "".join(tag + value for tag, value in sorted(said.items())).encode("ascii")


async def fetch_parameters(client: PosClient, holdings: Holdings) -> None:
    """參數下載: every block, then 361. RefusedError, or UnusableAnswerError when a block cannot be read."""
    await client.ready()
    found: dict[str, str] = {}
    for number in range(BLOCKS_MAX):
        answer = await client.insist(client.pos.management("360", field62=f"{number:04d}".encode()))
        try:
            block = read_parameter_block(_field62(answer, "parameter download"))
        except FormatError as error:
            raise UnusableAnswerError(UNUSABLE, str(error)) from error
        found.update(block.values)
        if not block.more:
            break
    holdings.parameters = found
    _approved(await client.insist(client.pos.management("361")), "parameter download ended")


async def fetch_hot_list(client: PosClient, holdings: Holdings, mode: str = "") -> list[HotListBlock]:
    """黑名單下載: every block of one version, then 391. By itself it asks for an increment to what it holds, else for the full list."""
    await client.ready()
    mode = mode or (INCREMENT if holdings.hot_list_version else FULL)
    for _ in range(BEGINNINGS_MAX):
        blocks = await _whole_list(client, mode, holdings.hot_list_version)
        if blocks and blocks[0].version < holdings.hot_list_version:
            return blocks  # versions only grow: this one has been replaced, and what is held stays
        if blocks and applies(blocks[0], holdings.hot_list_version):
            holdings.hot_list = apply_blocks(holdings.hot_list, blocks)
            holdings.hot_list_version = blocks[0].version
            _approved(await client.insist(client.pos.management("391")), "hot list download ended")
            return blocks
        mode = FULL if blocks else mode
    raise UnusableAnswerError(UNUSABLE, "the list changes faster than it can be fetched")


async def _whole_list(client: PosClient, mode: str, held: int) -> list[HotListBlock]:
    """Every block; none when they are not of one list."""
    blocks: list[HotListBlock] = []
    for number in range(1, BLOCKS_MAX):
        wanted = f"{mode}{held:08d}{number:04d}".encode("ascii")
        answer = await client.insist(client.pos.management("390", field62=wanted))
        if number > 1 and answer.code == "12":
            return []
        try:
            block = read_block(_field62(answer, "hot list download"))
        except FormatError as error:
            raise UnusableAnswerError(UNUSABLE, str(error)) from error
        if block.block_no != number or (blocks and block[1:4] != blocks[0][1:4]):
            return []
        blocks.append(block)
        if not block.more:
            return blocks
    raise UnusableAnswerError(UNUSABLE, "the list has no end")


async def upload_status(client: PosClient, holdings: Holdings) -> Answer:
    """狀態上送."""
    await client.ready()
    said = holdings.status(len(client.pos.batch.unsent))
    answer = await client.insist(client.pos.management("362", "0820", said))
    return _approved(answer, "status upload")


def _field62(answer: Answer, what: str) -> bytes:
    field62: bytes = _approved(answer, what).message.fields.get(62, b"")
    return field62


def _approved(answer: Answer, what: str) -> Answer:
    if not answer.approved:
        raise RefusedError(what, answer.code)
    return answer
