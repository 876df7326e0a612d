"""One personalised mail, made and sent with the standard library."""

import html
import smtplib
import threading
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from . import job
from .job import Variables

JOB = job.load()
"""Read when a worker is loaded: each library starts its own, and names only the module."""

_kept = threading.local()


def send_anew(address: str, variables: Variables) -> None:
    """Over a connection of its own."""
    with smtplib.SMTP("127.0.0.1", JOB.port, timeout=30) as server:
        server.send_message(_message(address, variables))


def send_kept(address: str, variables: Variables) -> None:
    """Over the connection of this thread. A broken one is not replaced: the bench's server breaks none."""
    if not hasattr(_kept, "server"):
        _kept.server = smtplib.SMTP("127.0.0.1", JOB.port, timeout=30)
    _kept.server.send_message(_message(address, variables))


send: Callable[[str, Variables], None] = send_kept if JOB.keep else send_anew


def _message(address: str, variables: Variables) -> EmailMessage:
    message = EmailMessage()
    message["From"] = JOB.sender
    message["To"] = address
    message["Subject"] = _fill(JOB.subject, variables)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="demo.test")
    message.set_content(_fill(JOB.text, variables))
    escaped = {name: html.escape(value) for name, value in variables.items()}
    message.add_alternative(_fill(JOB.html, escaped), subtype="html")
    return message


def _fill(template: str, variables: Variables) -> str:
    for name, value in variables.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template
