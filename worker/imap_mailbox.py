"""Mailboxes read over IMAP: what comes in is stored as any mail that comes in, each once.

How far a folder was read is a UIDVALIDITY and a UID in its row (RFC 3501 section 2.3.1.1). They move in the transaction
that stores the mail, and only from where they were, so a crash, a lost connection or a second reader costs a second
look and never a second mail. A folder is read from the moment it was given to us. If its UIDs are renumbered, what came
in since shortly before the last look is taken again; mail that is known is known by its Message-ID.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from providers.oauth import AccessTokens
from providers.smtp_login import Security
from providers.tokens import TokenError
from worker.bell import REPORTS_LANE
from worker.imap_client import PORTS, Access, ImapClient, MailboxUnreadable
from worker.reports import RawMail, store_mail
from worker.runtime import Runtime
from worker.vault import SecretUnreadable

log = structlog.get_logger()

WAIT_SECONDS = 60.0
"""Longest time between two looks; servers that announce news (IDLE) are looked at when they do."""
SESSION_SECONDS = 1200.0
"""A connection is used no longer: servers end those of 30 minutes, access tokens those of an hour."""
FIRST_BACKOFF, LAST_BACKOFF = 2.0, 300.0
RENUMBERED_OVERLAP = timedelta(days=2)
NOTICE_SECONDS = 5.0
"""How soon a mailbox that was added, changed or removed is noticed."""

OAUTH = {
    "gmail_smtp": ("google", "https://mail.google.com/"),
    "outlook_smtp": ("microsoft", "https://outlook.office.com/IMAP.AccessAsUser.All"),
}
"""Provider of a mailer -> whose tokens open its mailbox, and the scope that allows it."""


def mailbox_purpose(mailer_id: UUID) -> str:
    """What the access to a mailbox is sealed for."""
    return f"imap:{mailer_id}"


def read_access(value: Mapping[str, Any]) -> Access:
    """The access as it is stored."""
    security = Security(value.get("security") or Security.TLS)
    return Access(
        host=value["host"],
        port=value.get("port") or PORTS[security],
        security=security,
        username=value["username"],
        password=value.get("password"),
        folder=value.get("folder") or "INBOX",
    )


_ALL = text("""
    select box.mailer_id, md5(box.sealed_access) as seal, mailer.provider
    from imap_mailbox box join mailer on mailer.id = box.mailer_id and mailer.deleted_at is null
""")
_ONE = text("""
    select box.*, mailer.provider from imap_mailbox box
    join mailer on mailer.id = box.mailer_id and mailer.deleted_at is null where box.mailer_id = :id
""")
_MOVE = text("""
    update imap_mailbox set uid_validity = :validity, last_uid = :uid
    where mailer_id = :id and uid_validity is not distinct from cast(:known_validity as bigint) and last_uid = :known
    returning 1
""")
_LOOKED = text("update imap_mailbox set read_at = clock_timestamp(), error = null where mailer_id = :id")
_FAILED = text("update imap_mailbox set error = :error where mailer_id = :id")


class MailboxReader:
    """Reads one mailbox."""

    def __init__(self, runtime: Runtime, mailer_id: UUID) -> None:
        self._runtime = runtime
        self._mailer_id = mailer_id
        self._validity: int | None = None
        self._last_uid = 0

    def run(self, ended: Callable[[], bool]) -> None:
        """Reads until ``ended()``; connects again, ever more patiently, after every failure."""
        backoff = FIRST_BACKOFF
        while not ended():
            started = time.monotonic()
            try:
                self.session(ended)
            except (MailboxUnreadable, SecretUnreadable, TokenError) as error:
                self._note(str(error))
            except SQLAlchemyError as error:
                log.warning("mailbox_waits_for_database", mailer_id=str(self._mailer_id), error=type(error).__name__)
            except Exception as error:
                # An answer that nobody foresaw. The thread must outlive it: nobody would start another.
                log.exception("mailbox_reader_failed", mailer_id=str(self._mailer_id))
                self._note(f"the server's answer was not understood: {type(error).__name__}")
            else:
                continue
            if time.monotonic() - started > WAIT_SECONDS:  # it worked for a while
                backoff = FIRST_BACKOFF
            _pause(backoff, ended)
            backoff = min(LAST_BACKOFF, backoff * 2)

    def session(self, ended: Callable[[], bool]) -> None:
        """One connection: takes in what is there, then what comes, until it is old or ``ended()``."""
        with self._runtime.engine.connect() as connection:
            row = connection.execute(_ONE, {"id": self._mailer_id}).one_or_none()
        if row is None:
            _pause(WAIT_SECONDS, ended)
            return
        self._validity, self._last_uid = row.uid_validity, row.last_uid
        access = read_access(self._runtime.vault.open(mailbox_purpose(self._mailer_id), bytes(row.sealed_access)))
        settings = self._runtime.settings
        client = ImapClient(
            access, settings.mailer_guard, token=self._token(row.provider), longest=settings.max_body_bytes
        )
        try:
            self._catch_up(client, row.read_at)
            until = time.monotonic() + SESSION_SECONDS
            while not ended() and time.monotonic() < until:
                self._take_in(client, ended)
                client.wait(WAIT_SECONDS, ended)
        finally:
            client.close()

    def _token(self, provider: str) -> Callable[[], str] | None:
        """Gives an access token of the account that the mailer is connected with."""
        if provider not in OAUTH:
            return None
        service, scope = OAUTH[provider]

        def token() -> str:
            mailer = self._runtime.providers.mailer(self._mailer_id)
            if mailer is None:
                raise MailboxUnreadable("the mailer was deleted")
            tokens = AccessTokens(mailer.provider.account, service, scope=scope)
            try:
                return tokens.get().access_token
            finally:
                tokens.close()

        return token

    def _catch_up(self, client: ImapClient, read_at: Any) -> None:
        """Sets the mark of a folder that is new to us, or whose UIDs were renumbered."""
        if client.uid_validity == self._validity:
            return
        last = client.uid_next - 1
        if self._validity is not None and read_at is not None:
            recent = client.since((read_at - RENUMBERED_OVERLAP).utctimetuple())
            last = min(recent, default=client.uid_next) - 1
            log.warning("mailbox_renumbered", mailer_id=str(self._mailer_id), mails=len(recent))
        with self._runtime.engine.begin() as connection:
            if not self._moved(connection, client.uid_validity, last):
                raise MailboxUnreadable("another process reads it")

    def _take_in(self, client: ImapClient, ended: Callable[[], bool]) -> None:
        taken = 0
        for uid in client.after(self._last_uid):
            if ended():
                return
            taken += self._take(client, uid)
        with self._runtime.engine.begin() as connection:
            connection.execute(_LOOKED, {"id": self._mailer_id})
        if taken:
            self._runtime.bells.ring(REPORTS_LANE)
            log.info("mailbox_read", mailer_id=str(self._mailer_id), mails=taken)

    def _take(self, client: ImapClient, uid: int) -> bool:
        """Stores one mail and moves the mark behind it. A mail that is gone or too large is passed over."""
        size = client.size(uid)
        fits = size is not None and size <= self._runtime.settings.max_body_bytes
        if size is not None and not fits:
            log.warning("mail_too_large", mailer_id=str(self._mailer_id), bytes=size)
        raw = client.mail(uid) if fits else None
        mailer = self._runtime.providers.mailer(self._mailer_id)
        if mailer is None:
            raise MailboxUnreadable("the mailer was deleted")
        with self._runtime.engine.begin() as connection:
            if not self._moved(connection, client.uid_validity, uid):
                raise MailboxUnreadable("another process reads it")
            if raw is not None:
                key = f"imap:{self._mailer_id}:{client.uid_validity}:{uid}:{hashlib.sha256(raw).hexdigest()[:16]}"
                store_mail(connection, self._runtime.vault, mailer, RawMail(natural_key=key, raw=raw))
        return raw is not None

    def _moved(self, connection: Any, validity: int, uid: int) -> bool:
        known = {"known_validity": self._validity, "known": self._last_uid}
        moved = connection.execute(_MOVE, {"id": self._mailer_id, "validity": validity, "uid": uid, **known})
        if moved.one_or_none() is None:
            return False
        self._validity, self._last_uid = validity, uid
        return True

    def _note(self, why: str) -> None:
        log.warning("mailbox_unreadable", mailer_id=str(self._mailer_id))
        try:
            with self._runtime.engine.begin() as connection:
                connection.execute(_FAILED, {"id": self._mailer_id, "error": why.replace("\0", "")[:500]})
        except SQLAlchemyError as error:
            log.warning("mailbox_waits_for_database", mailer_id=str(self._mailer_id), error=type(error).__name__)


class Mailboxes:
    """Reads every mailbox there is, in a thread each."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._readers: dict[tuple[UUID, str], tuple[threading.Thread, threading.Event]] = {}

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set; then waits for what is being stored."""
        while not stop.is_set():
            self._follow()
            stop.wait(NOTICE_SECONDS)
        for _, ended in self._readers.values():
            ended.set()
        for thread, _ in self._readers.values():
            thread.join(10)

    def _follow(self) -> None:
        """Starts and ends readers as mailboxes come, change and go."""
        try:
            with self._runtime.engine.connect() as connection:
                wanted = {(row.mailer_id, row.seal) for row in connection.execute(_ALL)}
        except SQLAlchemyError as error:
            log.warning("mailboxes_wait_for_database", error=type(error).__name__)
            return
        for gone in self._readers.keys() - wanted:
            self._readers.pop(gone)[1].set()
        for key in wanted - self._readers.keys():
            ended = threading.Event()
            reader = MailboxReader(self._runtime, key[0])
            thread = threading.Thread(target=reader.run, args=(ended.is_set,), name=f"imap {key[0]}", daemon=True)
            self._readers[key] = (thread, ended)
            thread.start()


def _pause(seconds: float, ended: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not ended() and time.monotonic() < until:
        time.sleep(min(0.2, max(0.0, until - time.monotonic())))
