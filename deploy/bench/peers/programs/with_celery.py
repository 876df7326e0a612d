"""A Celery task for each mail. Results are ignored; a task is acknowledged when it starts, as by default."""

from collections.abc import Sequence

from celery import Celery

from .job import Variables
from .mail import JOB, send

app = Celery("mails", broker=JOB.redis_url)
app.conf.broker_connection_retry_on_startup = True
send_mail = app.task(name="send_mail", ignore_result=True)(send)


def submit(people: Sequence[tuple[str, Variables]]) -> None:
    for address, variables in people:
        send_mail.delay(address, variables)
