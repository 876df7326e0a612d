"""What a worker keeps of submissions stays within its bounds, however many small ones there are."""

import subprocess
import sys
import tracemalloc

import worker.submissions
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


def measure() -> tuple[int, int]:
    """How many of 150 are kept in the end, and the bytes that all but the first took."""
    worker.submissions.KEPT_BYTES = ROOM
    submissions = Submissions()
    kept(submissions, 0)
    tracemalloc.start()
    for number in range(1, 150):
        kept(submissions, number)
    return len(submissions._kept), tracemalloc.get_traced_memory()[0]


def test_many_small_submissions_take_no_more_memory_than_they_may() -> None:
    # In a process of its own: in this one threads of other tests may still be at work.
    argv = (sys.executable, "-m", __name__)
    printed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100).stdout
    number, held = map(int, printed.split())
    assert 10 < number < 149
    assert held < ROOM


if __name__ == "__main__":
    print(*measure())  # noqa: T201 -- what the test above reads
