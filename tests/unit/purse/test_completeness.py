"""What is missing, and what of it came damaged."""

from pathlib import Path

import pytest

from switch.keys.software_vault import SoftwareVault
from switch.purse.completeness import missing
from switch.storage.pool import connect
from tests.helpers.audited_city import City, found, upload
from tests.helpers.offline import Ride

pytestmark = pytest.mark.server


async def test_a_damaged_record_that_comes_again_is_listed_once(
    postgres_url: str, vault: SoftwareVault, tmp_path: Path
) -> None:
    await found(postgres_url, tmp_path)
    first, second, last = (Ride(atc=n, record_serial=n + 1, psam_serial=n + 1).pack() for n in range(3))
    damaged = second[:94] + bytes((second[94] ^ 1, second[95]))
    other = second[:40] + bytes((second[40] ^ 1,)) + second[41:]
    async with City(postgres_url, vault, tmp_path) as city:
        for batch in ((first, damaged, last), (damaged,), (other, damaged)):
            await city.send(upload(*batch))
        await city.fold()
    async with await connect(postgres_url) as connection:
        answer = await missing(connection)
    assert [(one.terminal_no, one.serial) for one in answer.damaged] == [(1, 2), (1, 2)]
    assert len({one.entry_no for one in answer.damaged}) == 2
