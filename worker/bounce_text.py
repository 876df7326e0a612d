"""Bounces without a machine-readable part: qmail's QSBMF, Exim's, sendmail's, Exchange's, Gmail's and Yahoo's prose.

A mail is read as one only if it comes from a mail system. What is found are the addresses above the copy of the mail
that came back, each with what is written about it; who compares them with the recipients of that mail is safe from the
addresses that merely occur.
"""

import re

from models.event import EventType
from worker.mail_tree import Part
from worker.notice import Notice, one_line, status_in

LONGEST = 64 * 1024
"""Characters read of the prose."""
MOST_ADDRESSES = 50

_SYSTEM = re.compile(
    r"^(?:mailer-?daemon|postmaster|mail-?delivery|maildelivery|microsoftexchange[0-9a-f]+)", re.IGNORECASE
)
_COPY = re.compile(
    r"^(?:-{2,}\s*(?:below this line|original message|this is a copy|unsent message|the header of the original"
    r"|transcript of session follows.{0,20}message|original headers|undelivered message)"
    r"|original message headers|received: |return-path: |diagnostic information for administrators)",
    re.IGNORECASE | re.MULTILINE,
)
_ADDRESS = re.compile(
    r"[^\s<>\"'(),;:\[\]\\@]{1,64}@[A-Za-z0-9\u0080-\uffff](?:[A-Za-z0-9.\u0080-\uffff-]{0,250}[A-Za-z0-9\u0080-\uffff])"
)
_DELAY = re.compile(
    r"\bdelayed\b|\bdelay\b|warning: (?:message|could not send)|not yet been delivered|still being retried"
    r"|will (?:continue to be|be) retried|will keep trying|no action is required|incomplete",
    re.IGNORECASE,
)
_FAILURE = re.compile(
    r"undeliver|could ?n[o']t be delivered|could not be reached|can(?:not|'t) be delivered|was ?n[o']t delivered"
    r"|unable to deliver|delivery (?:has )?(?:failed|failure|status)|failed permanently|failed to deliver"
    r"|returned (?:mail|to sender)|permanent (?:fatal )?error|did not reach|giving up|wasn't able to deliver"
    r"|mail delivery (?:system|failed)|rejected|bounced?\b|nicht zugestellt|unzustellbar|non remis|no se pudo entregar"
    r"|não pôde ser entregue|impossibile recapitare|niet worden (?:bezorgd|afgeleverd)|failure notice",
    re.IGNORECASE,
)  # fmt: skip
_GIVES_UP = re.compile(r"permanent|giving up|given up|could not be delivered to one or more|failed\b", re.IGNORECASE)
_QMAIL = re.compile(r"^(?:hi\. this is|i'm sorry to have to inform you|message from )", re.IGNORECASE)


def comes_from_a_system(mail: Part, envelope_from: str | None) -> bool:
    """Whether a mail system wrote it: one that says so, or an empty return path with a subject of that kind."""
    if mail.header("x-failed-recipients") or any(_SYSTEM.match(address) for _, address in mail.addresses("from")):
        return True
    subject = mail.header("subject")[:1000]
    unanswerable = envelope_from == "" or mail.header("return-path").strip() == "<>"
    return unanswerable and bool(_FAILURE.search(subject) or _DELAY.search(subject))


def read_prose(mail: Part) -> list[Notice]:
    """The notices in a bounce that only people were meant to read; empty where it is none."""
    prose = _prose(mail)
    subject = mail.header("subject")
    beginning = f"{subject}\n{prose[:4000]}"
    failed = [address for _, address in mail.addresses("x-failed-recipients")]
    if not (failed or _FAILURE.search(beginning) or _DELAY.search(beginning) or _QMAIL.match(prose)):
        return []
    delayed = not failed and bool(_DELAY.search(beginning)) and not _GIVES_UP.search(beginning)
    type_ = EventType.DEFERRED if delayed else EventType.BOUNCED
    said = _said(prose)
    notices = {address.lower(): _notice(type_, address, said.get(address.lower(), prose)) for address in failed}
    for address, text in said.items():
        if len(notices) < MOST_ADDRESSES and not failed:
            notices.setdefault(address, _notice(type_, address, text))
    return list(notices.values()) or [_notice(type_, "", prose)]


def _notice(type_: EventType, address: str, said: str) -> Notice:
    return Notice(
        type=type_, recipients=(address,) if address else (), status=status_in(said), reason=one_line(said[:1000])
    )


def _prose(mail: Part) -> str:
    """What stands above the copy of the mail that came back."""
    plain = mail.first("text/plain") or mail.first("text/html") or mail
    text = plain.text[:LONGEST]
    if plain.media_type == "text/html":
        text = re.sub(r"<[^<>]{0,2000}>", " ", text)
    copy = _COPY.search(text)
    return (text[: copy.start()] if copy else text).strip()


def _said(prose: str) -> dict[str, str]:
    """Address in lower case -> what is written from there to the next address."""
    found = [match for _, match in zip(range(MOST_ADDRESSES * 4), _ADDRESS.finditer(prose), strict=False)]
    said: dict[str, str] = {}
    for match, following in zip(found, [*found[1:], None], strict=False):
        key = match[0].lower()
        text = prose[match.end() : following.start() if following else None]
        said[key] = f"{said.get(key, '')} {text}"[:4000]
    return said
