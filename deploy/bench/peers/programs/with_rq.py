"""An RQ job for each mail, put into the queue in one pipeline. RQ's worker forks for every job."""

from collections.abc import Sequence

from redis import Redis
from rq import Queue

from .job import Variables
from .mail import JOB, send

queue = Queue("mails", connection=Redis.from_url(JOB.redis_url))


def submit(people: Sequence[tuple[str, Variables]]) -> None:
    queue.enqueue_many([Queue.prepare_data(send, args=person) for person in people])
