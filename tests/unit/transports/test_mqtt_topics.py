"""Topics: one spelling for each terminal, and answers only where its access list lets it listen."""

import pytest

from switch.transports.mqtt_topics import (
    Channel,
    Source,
    down_topic,
    encoded,
    shared_subscriptions,
    source_of,
)

BUS = Source("33600001", Channel.ISO)


@pytest.mark.parametrize("terminal_id", ["33600001", "A/ +#001", "%41%4100", "........", "~-_ 0001"])
def test_a_terminal_is_found_under_its_one_encoded_name(terminal_id: str) -> None:
    name = encoded(terminal_id)
    assert not set(name) & set("/+# ")
    for channel in Channel:
        assert source_of(f"ccs/v1/{name}/{channel.value}/up") == Source(terminal_id, channel)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "ccs/v1",
        "ccs/v1//iso/up",
        "ccs/v1/33600001/iso/down",
        "ccs/v1/33600001/iso/up/",
        "ccs/v1/33600001/other/up",
        "ccs/v1/3360000/iso/up",
        "ccs/v1/336000011/iso/up",
        "ccs/v2/33600001/iso/up",
        "ccs/v1/%333600001/iso/up",
        "ccs/v1/%33360000/iso/up",  # the same terminal, spelt so that an access list would not know it
        "ccs/v1/a%2f000001/iso/up",
        "ccs/v1/3360000%FF/iso/up",
        "ccs/v1/list/hot/up",
    ],
)
def test_any_other_topic_is_nobodys(topic: str) -> None:
    assert source_of(topic) is None


@pytest.mark.parametrize(
    ("wish", "goes_to"),
    [
        (None, "ccs/v1/33600001/iso/down"),
        ("ccs/v1/33600001/kiosk/down", "ccs/v1/33600001/kiosk/down"),
        ("ccs/v1/33600001/iso/up", "ccs/v1/33600001/iso/down"),
        ("ccs/v1/33600002/iso/down", "ccs/v1/33600001/iso/down"),
        ("ccs/v1/33600001//down", "ccs/v1/33600001/iso/down"),
        ("ccs/v1/33600001/+/down", "ccs/v1/33600001/iso/down"),
        ("ccs/v1/33600001/a/b/down", "ccs/v1/33600001/iso/down"),
        ("ccs/v1/33600001/" + "a" * 256 + "/down", "ccs/v1/33600001/iso/down"),
        ("ccs/v1/list/hot/x", "ccs/v1/33600001/iso/down"),
        *(
            (f"ccs/v1/33600001/{odd}/down", "ccs/v1/33600001/iso/down")
            for odd in ("a\0", "\1", "\x7f", "\ufeff", "\uffff")
        ),
    ],
)
def test_an_answer_goes_where_it_is_wished_only_within_the_terminals_own_topics(
    wish: str | None, goes_to: str
) -> None:
    assert down_topic(BUS, wish) == goes_to


def test_all_processes_of_a_group_share_what_comes_up() -> None:
    assert shared_subscriptions("g") == ["$share/g-iso/ccs/v1/+/iso/up", "$share/g-purse/ccs/v1/+/purse/up"]
