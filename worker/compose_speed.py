"""How fast mails are composed: a 5 KB mail of html and text, by itself and with everything switched on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from models.base import uuid7
from models.content import Address, Content, SendSettings, message_id_for
from providers.base import Form
from worker.compose import Compiled, Letter
from worker.dkim import Algorithm, Signer, SigningKey, new_key
from worker.tracking import Tracker

_LINE = '<p style="margin:0">Some words of a newsletter, as many of them as a paragraph has, and then the next.</p>\n'
_LINK = '<p><a href="https://shop.demo.test/offer?utm_source=news&amp;number={{number}}">Offer</a></p>\n'
_HTML = (
    f"<html><body><p>Hello {{{{name}}}} of {{{{city}}}},</p>\n{_LINK * 5}{_LINE * 42}<p>{{{{plan}}}}</p></body></html>"
)
_TEXT = f"Hello {{{{name}}}} of {{{{city}}}},\n\n{'Some words of a newsletter. ' * 20}\n\n{{{{plan}}}} {{{{number}}}}\n"
_EVERYTHING = SendSettings(open_tracking=True, click_tracking=True, unsubscribe=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Processor time on one core."""

    variables_us: float
    """Microseconds per mail with four variables."""
    everything_us: float
    """The same with five tracked links, the pixel and the unsubscribe link."""
    signed_us: Mapping[Algorithm, float]
    """Microseconds that a DKIM signature of that mail adds, by the algorithm of its key."""
    compile_ms: float
    """Milliseconds to compile the content with everything, once per submission."""
    mail_bytes: int
    """Size of the mail with everything."""


def measure(mails: int = 2000) -> Speed:
    """Composes ``mails`` mails each way; two or three seconds for the default, nearly all of them for RSA."""
    letters = [_letter(number) for number in range(mails)]
    plain, rich = _compiled(SendSettings()), _compiled(_EVERYTHING)
    start = time.process_time()
    _compiled(_EVERYTHING)
    compiled = time.process_time() - start
    made = rich.email(letters[0]).mime or b""
    everything = _microseconds(rich, letters)
    return Speed(
        variables_us=_microseconds(plain, letters),
        everything_us=everything,
        signed_us={each: max(0.0, _microseconds(rich, letters, _signer(each)) - everything) for each in Algorithm},
        compile_ms=compiled * 1e3,
        mail_bytes=len(made),
    )


def _signer(algorithm: Algorithm) -> Signer:
    return Signer("demo.test", [SigningKey("bench", new_key(algorithm).private)])


def _microseconds(compiled: Compiled, letters: Sequence[Letter], signer: Signer | None = None) -> float:
    start = time.process_time()
    for letter in letters:
        compiled.email(letter, signer)
    return (time.process_time() - start) / len(letters) * 1e6


def _compiled(settings: SendSettings) -> Compiled:
    content = Content(
        sender=Address("news@demo.test", "Demo"),
        subject="{{name}}, the news",
        html=_HTML,
        text=_TEXT,
        individual=True,
        personalised=True,
        settings=settings,
    )
    tracker = Tracker("https://t.demo.test", bytes(32))
    return Compiled(content, seed=UUID(int=1), form=Form.MIME, files={}, tracker=tracker, workspace=UUID(int=2))


def _letter(number: int) -> Letter:
    message = uuid7()
    recipient = Address(f"person{number}@example.test", f"Person {number}")
    return Letter(
        message_id=message,
        rfc_message_id=message_id_for(message, "demo.test"),
        recipients=(recipient.email,),
        to=recipient,
        variables={"name": f"Person {number}", "city": "Zürich", "plan": "Gold & more", "number": str(number)},
        date=datetime.now(UTC),
    )
