"""Requests to a webhook endpoint: which deliveries go together, and the body that carries them."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

import orjson

from worker.wire import Facts, body


class Delivery(NamedTuple):
    """A claimed row of `models.webhook.WebhookDelivery`. Thousands are made a second, which a tuple is cheapest at."""

    id: UUID
    token: int
    event_id: UUID
    due_at: datetime
    """When it was due before it was claimed."""
    tries: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One request: a single delivery, or several in a JSON array."""

    deliveries: tuple[Delivery, ...]
    events: tuple[Facts, ...] = field(repr=False)
    """One for each delivery."""
    is_array: bool

    @property
    def traceparents(self) -> tuple[str | None, ...]:
        """Of the submissions whose events it carries."""
        return tuple(event["traceparent"] for event in self.events)

    def webhook_id(self) -> str:
        """That of an array is a function of the set.

        The id of its first delivery would not do: a receiver that has seen it would take a different array that begins
        with the same event for a repetition, and lose the rest.
        """
        first = self.deliveries[0].id
        if len(self.deliveries) == 1:
            return str(first)
        return str(uuid.uuid5(first, b"".join([each.id.bytes for each in self.deliveries]).hex()))

    def body(self) -> bytes:
        """In an array each event has its own ``webhook_id``. To be made once: it is not kept."""
        if not self.is_array:
            return orjson.dumps(body(self.events[0]))
        pairs = zip(self.deliveries, self.events, strict=True)
        return orjson.dumps([{**body(event), "webhook_id": delivery.id} for delivery, event in pairs])


def parcels(claimed: Sequence[Delivery], events: Mapping[UUID, Facts], size: int, *, ordered: bool) -> list[Parcel]:
    """Parcels of ``size`` deliveries at most, with what ``events`` knows of each; arrays unless ``size`` is 1."""
    return [
        Parcel(deliveries=chunk, events=tuple([events[each.event_id] for each in chunk]), is_array=size > 1)
        for chunk in _chunks(claimed, size, ordered)
    ]


def _chunks(claimed: Sequence[Delivery], size: int, ordered: bool) -> Iterator[tuple[Delivery, ...]]:
    """What failed together is due at the same instant and stays together, so that a retry is the same array under the
    same id."""

    def failed_with(each: Delivery) -> float:
        return each.due_at.timestamp() if each.tries and size > 1 and not ordered else 0.0

    for _, group in groupby(sorted(claimed, key=failed_with), key=failed_with):
        together = tuple(group)
        yield from (together[start : start + size] for start in range(0, len(together), size))
