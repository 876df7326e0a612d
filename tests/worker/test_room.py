"""What a worker keeps of submissions stays within its bounds, however many small ones there are."""

import tracemalloc

import pytest

from models.base import uuid7
from models.content import Address, Content
from providers.base import Form
from worker.compose import Compiled
from worker.submissions import Submissions

ROOM = 2 * 1024 * 1024


def kept(submissions: Submissions, number: int) -> None:
    body = f"<p>Hello {{{{name}}}}, this is number {number}</p>" + "<p>Some words of a newsletter.</p>\n" * 100
    content = Content(sender=Address("a@demo.test"), subject="Hello", html=body, text="Hello", individual=True,
                      personalised=True)  # fmt: skip
    compiled = Compiled(content, seed=uuid7(), form=Form.MIME, files={}, tracker=None, workspace=uuid7())
    submissions._keep((uuid7(), uuid7()), content, compiled)


def test_many_small_submissions_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.submissions.KEPT_BYTES", ROOM)
    submissions = Submissions()
    kept(submissions, 0)
    tracemalloc.start()
    for number in range(1, 150):
        kept(submissions, number)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 10 < len(submissions._kept) < 149
    assert held < ROOM
