"""The part of the bench that measures others: that they send the same mail, and that one who cannot is a note."""

import html
import smtplib
import sys
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from deploy.bench import mails
from deploy.bench.peers.catalogue import PEERS, Peer
from deploy.bench.peers.measure import Place, compare
from deploy.bench.report import Report
from deploy.bench.sinks import CountingPostfixSink, OwnSink, find_tool
from tests.conftest import Services, wait_until

MAILS = 20
WARM_UP = 5
CELERY = replace(PEERS[0], workers=(f"{PEERS[0].workers[0]} --without-mingle",))
"""Asking other workers whether they are there takes a second."""
ABSENT = Peer(name="absent", title="absent", program="with_absent", requirements=("postroad-has-no-such-peer==1",))
BROKEN = replace(CELERY, name="broken", title="broken", workers=("programs.absent",))


@pytest.fixture
def place(services: Services, database_url: str, tmp_path: Path) -> Place:
    # An environment that is there already, so that none is made; nothing is put into it.
    (tmp_path / "venv").symlink_to(sys.prefix)
    return Place(
        redis_url=services.redis.url,
        database_url=database_url,
        sender="hello@demo.test",
        sink=OwnSink(),
        folder=tmp_path,
    )


def test_a_peer_sends_each_mail_once_and_one_that_cannot_be_installed_is_a_note(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert isinstance(place.sink, OwnSink)
    place.sink.emulator.keep_data = True
    report, said = Report(), list[str]()
    with place.sink:
        compare([ABSENT, CELERY], place, report, ours=4_000.0, count=MAILS, say=said.append, warm_up=WARM_UP)
        received = list(place.sink.emulator.received)
    assert any(note.startswith("absent: skipped, not installed: ERROR: No matching") for note in report.notes)
    assert said == ["absent", CELERY.title]
    (figure,) = report.figures
    assert figure.name == "peer_celery"
    assert figure.ratio == pytest.approx(4_000.0 / figure.value)
    assert [cost.component for cost in report.costs if cost.microseconds > 0] == [CELERY.title]
    expected = mails.people("celery-", WARM_UP + MAILS)
    assert sorted(mail.recipients[0] for mail in received) == expected
    for mail in received:
        _is_the_mail_of_the_bench(mail.data, expected.index(mail.recipients[0]))


def _is_the_mail_of_the_bench(data: bytes, number: int) -> None:
    message = message_from_bytes(data, policy=policy.default)
    assert message["Subject"] == f"Reader {number}, the news of November"
    text, page = (part.get_content() for part in message.iter_parts())
    assert text.splitlines()[:3] == [f"Hello Reader {number} of Zürich,", "", f"Gold & more {number}"]
    assert html.escape("Gold & more") in page
    assert len(data) == pytest.approx(mails.MAIL_BYTES, rel=0.2)


def test_a_peer_whose_worker_ends_is_a_note_that_says_what_it_wrote(place: Place) -> None:
    report = Report()
    with place.sink:
        compare([BROKEN], place, report, ours=1.0, count=MAILS, say=lambda _: None, warm_up=WARM_UP)
    assert report.figures == []
    assert f"had not sent {WARM_UP} mails when one of its processes ended" in report.notes[-1]
    assert "No module named programs.absent" in report.notes[-1]
    assert report.exit_code == 0, "what befalls a peer is not our mail"


def test_the_counting_sink_knows_how_many_mails_it_took(tmp_path: Path) -> None:
    program = find_tool("smtp-sink")
    if program is None:
        pytest.skip("smtp-sink is not installed")
    with CountingPostfixSink(program, tmp_path / "sink.log") as sink:
        assert sink.arrived == 0
        with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as server:
            for _ in range(300):
                server.sendmail("a@demo.test", ["b@demo.test"], "Subject: x\r\n\r\nhello\r\n")
        wait_until(lambda: sink.arrived == 300, "all are counted", 2)


def test_every_peer_is_pinned_and_has_its_row_in_the_comparison() -> None:
    page = Path("docs/peers.md").read_text()
    assert [peer.name for peer in PEERS if not all("==" in wanted for wanted in peer.requirements)] == []
    assert [peer.title for peer in PEERS if f"| {peer.title} |" not in page] == []
