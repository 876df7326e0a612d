import base64
import hmac
from uuid import uuid4

import pytest

from worker.tracking import Clicked, Opened, Tracker, Unsubscribed, location

SECRET = b"a secret of thirty-two bytes ...."
MESSAGE, WORKSPACE = uuid4(), uuid4()
TRACKER = Tracker("https://t.demo.test/", SECRET)


def token(url: str) -> str:
    return url.rpartition("/")[2]


def test_an_open_token_reads_back() -> None:
    url = TRACKER.open_url(MESSAGE, WORKSPACE)
    assert url.startswith("https://t.demo.test/t/o/")
    assert TRACKER.read_open(token(url)) == Opened(message_id=MESSAGE, workspace=WORKSPACE)


def test_a_click_token_carries_its_target() -> None:
    url = TRACKER.click_url(MESSAGE, WORKSPACE, "https://example.com/a?b=1&c=2#d")
    assert url.startswith("https://t.demo.test/t/c/")
    assert TRACKER.read_click(token(url)) == Clicked(
        message_id=MESSAGE, workspace=WORKSPACE, url="https://example.com/a?b=1&c=2#d"
    )


@pytest.mark.parametrize("recipient", ["ann@example.test", "jürgen@bücher.test", ""])
def test_an_unsubscribe_token_carries_recipient_and_list(recipient: str) -> None:
    url = TRACKER.unsubscribe_url(MESSAGE, WORKSPACE, recipient, "news")
    assert TRACKER.read_unsubscribe(token(url)) == Unsubscribed(
        message_id=MESSAGE, workspace=WORKSPACE, recipient=recipient, list_id="news"
    )


def test_tokens_need_no_escaping_in_a_path_and_are_short() -> None:
    made = token(TRACKER.open_url(MESSAGE, WORKSPACE))
    assert len(made) == 67
    assert made.replace("-", "").replace("_", "").isalnum()


def test_the_tag_is_the_hmac_of_what_follows_it() -> None:
    made = token(TRACKER.open_url(MESSAGE, WORKSPACE))
    raw = base64.urlsafe_b64decode(made + "=" * (-len(made) % 4))
    key = hmac.digest(SECRET, b"postroad tracking v1 OPEN", "sha256")
    assert raw[2:18] == hmac.digest(key, raw[18:], "sha256")[:16]


def test_any_changed_character_is_refused() -> None:
    made = token(TRACKER.click_url(MESSAGE, WORKSPACE, "https://example.com/"))
    for place, old in enumerate(made):
        changed = made[:place] + ("B" if old == "A" else "A") + made[place + 1 :]
        assert TRACKER.read_click(changed) is None


def test_a_target_swapped_under_the_old_signature_is_refused() -> None:
    made = token(TRACKER.click_url(MESSAGE, WORKSPACE, "https://good.test/"))
    raw = base64.urlsafe_b64decode(made + "=" * (-len(made) % 4)).replace(b"good", b"evil")
    assert TRACKER.read_click(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) is None


def test_a_token_is_of_use_for_its_own_purpose_only() -> None:
    opened = token(TRACKER.open_url(MESSAGE, WORKSPACE))
    clicked = token(TRACKER.click_url(MESSAGE, WORKSPACE, "https://example.com/"))
    assert TRACKER.read_click(opened) is None
    assert TRACKER.read_unsubscribe(clicked) is None
    assert TRACKER.read_open(clicked) is None


def test_another_secret_reads_nothing() -> None:
    assert (
        Tracker("https://t.demo.test", b"another secret, also long enough").read_open(
            token(TRACKER.open_url(MESSAGE, WORKSPACE))
        )
        is None
    )


def test_tokens_of_before_a_rotation_are_read_until_the_old_secret_is_taken_away() -> None:
    old = token(TRACKER.open_url(MESSAGE, WORKSPACE))
    fresh = b"a fresh secret of many more bytes"
    rotated = Tracker("https://t.demo.test", fresh, previous=[SECRET])
    assert rotated.read_open(old) is not None
    assert Tracker("https://t.demo.test", fresh).read_open(old) is None
    assert Tracker("https://t.demo.test", fresh).read_open(token(rotated.open_url(MESSAGE, WORKSPACE))) is not None


def test_a_tracking_domain_changes_the_root_and_nothing_else() -> None:
    own = TRACKER.at("https://links.brand.test/")
    url = own.open_url(MESSAGE, WORKSPACE)
    assert url.startswith("https://links.brand.test/t/o/")
    assert TRACKER.read_open(token(url)) is not None
    assert TRACKER.open_url(MESSAGE, WORKSPACE).startswith("https://t.demo.test/t/o/")


@pytest.mark.parametrize(
    "junk", ["", "A", "AAAA", "%00", "é" * 80, "=" * 80, "A" * 67, "A" * 20_000, "../../x", "//evil.test", "A A" * 30]
)
def test_junk_is_no_token(junk: str) -> None:
    assert TRACKER.read_open(junk) is None
    assert TRACKER.read_click(junk) is None
    assert TRACKER.read_unsubscribe(junk) is None


@pytest.mark.parametrize("spelling", ["{}=", "{}==", "{}\n", " {}"])
def test_a_token_has_one_spelling(spelling: str) -> None:
    made = token(TRACKER.open_url(MESSAGE, WORKSPACE))
    assert TRACKER.read_open(spelling.format(made)) is None


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "//evil.test", "/relative", "mailto:a@b.test",
        "http:", "http://", "http:///evil.test", "https:/\\evil.test", "ftp://example.com", "", "#top",
        "https://example.com/" + "a" * 9000,
    ],
)  # fmt: skip
def test_only_absolute_web_addresses_can_be_tracked(url: str) -> None:
    with pytest.raises(ValueError):
        TRACKER.click_url(MESSAGE, WORKSPACE, url)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        (" https://example.com/a b ", "https://example.com/a%20b"),
        ("https://example.com/\r\nSet-Cookie: x=1", "https://example.com/Set-Cookie:%20x=1"),
        ("https://bücher.test:8080/ü?q=ß#é", "https://xn--bcher-kva.test:8080/%C3%BC?q=%C3%9F#%C3%A9"),
        ("https://example.com/a%20b?c=%2F", "https://example.com/a%20b?c=%2F"),
        ('https://example.com/"<>`', "https://example.com/%22%3C%3E%60"),
    ],
)
def test_a_target_is_made_fit_for_a_location_header(url: str, clean: str) -> None:
    assert location(url) == clean


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Tracker("https://t.demo.test", b"short")
