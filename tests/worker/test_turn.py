"""A turn of a webhook lane: what goes out while more is fetched."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from models.base import uuid7
from worker.parcel import Delivery, Parcel
from worker.postman import Answer
from worker.turn import Posted, Result, Turn

AT = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PATIENCE_SECONDS = 30.0


def parcel() -> Parcel:
    delivery = Delivery(id=uuid7(), token=1, event_id=uuid7(), due_at=AT, tries=0, created_at=AT)
    return Parcel(deliveries=(delivery,), events=({},), is_array=False)


def accepted(_: Parcel) -> Posted:
    answer = Answer(status=204, milliseconds=1)
    return Posted(webhook_id="id", body=b"{}", timestamp=1, signature="v1,", answer=answer)


def turn() -> Turn:
    return Turn(failures=0, seconds=PATIENCE_SECONDS, ordered=False)


def test_the_first_portion_goes_out_while_the_next_is_fetched() -> None:
    out = threading.Event()
    results: list[Result] = []

    def post(each: Parcel) -> Posted:
        out.set()
        return accepted(each)

    def portions() -> Iterator[list[Parcel]]:
        yield [parcel()]
        assert out.wait(PATIENCE_SECONDS), "nothing goes out before everything is here"
        yield [parcel(), parcel()]

    posting = turn()
    posting.run(portions(), post, results.extend)
    assert (len(results), posting.taken, posting.unposted()) == (3, 3, [])


def test_what_went_out_is_reported_while_more_is_fetched() -> None:
    reported = threading.Event()

    def portions() -> Iterator[list[Parcel]]:
        yield [parcel()]
        assert reported.wait(PATIENCE_SECONDS), "nothing is reported before everything is here"
        yield [parcel()]

    turn().run(portions(), accepted, lambda _: reported.set())


def test_a_fetch_that_fails_ends_the_turn() -> None:
    def portions() -> Iterator[list[Parcel]]:
        yield [parcel()]
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        turn().run(portions(), accepted, lambda _: None)
