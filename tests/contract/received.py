"""Mail as its recipients have it."""

from email import message_from_bytes, policy
from email.message import EmailMessage

from providers.emulators.smtp import Received
from tests.api_shim.office import Office


def only(office: Office) -> tuple[Received, EmailMessage]:
    """The one mail that the office's server took."""
    [received] = office.house.server.received
    return received, read(received.data)


def read(data: bytes) -> EmailMessage:
    return message_from_bytes(data, _class=EmailMessage, policy=policy.default)


def text_of(mail: EmailMessage, kind: str) -> str:
    """kind: ``html`` or ``plain``."""
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content()).strip()
