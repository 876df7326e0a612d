"""A dramatiq actor for each mail, over Redis. Acknowledged when done, retried when it raises, as by default."""

from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from .job import Variables
from .mail import JOB, send

dramatiq.set_broker(RedisBroker(url=JOB.redis_url))
send_mail = dramatiq.actor(send, actor_name="send_mail")


def submit(people: Sequence[tuple[str, Variables]]) -> None:
    for address, variables in people:
        send_mail.send(address, variables)
