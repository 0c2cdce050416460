"""What a terminal fetches and reports: parameters block by block, and its status. The conversation only; a client sends and waits."""

from typing import Final

from switch.domain.errors import FormatError
from switch.messages.parameters import parameter_text, read_parameter_block
from terminal_sim.pos_answers import UNUSABLE, Answer, UnusableAnswerError
from terminal_sim.pos_client import PosClient, RefusedError

BLOCKS_MAX: Final = 10_000  # four digits of block number


class Holdings:
    """What one terminal works by. A download counts when it is whole: until then the old one stays in force."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self.hot_list: dict[str, int] = {}
        self.hot_list_version = 0

    def status(self, unsent: int) -> bytes:
        """Field 62 of a status upload."""
        said = self.parameters | {
            "31": parameter_text("31", self.hot_list_version),
            "32": parameter_text("32", unsent),
        }
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
