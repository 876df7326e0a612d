"""A workspace whose mail goes to Postmark's emulator, and the reports that come back."""

import json
from typing import Any, cast
from uuid import UUID

from api_shim.submission import Accepted, Link
from models.crm import Customer, Deal
from models.mailer import Mailer
from providers.base import HookRequest
from providers.emulators.postmark import Mail, PostmarkEmulator
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House
from worker.mailers import mailer_purpose
from worker.reports import apply_reports, store
from worker.settings import Settings


class PostmarkHouse(House):
    def __init__(self, settings: Settings, postmark: PostmarkEmulator) -> None:
        self.postmark = postmark
        super().__init__(settings, cast(SmtpEmulator, None))  # nothing goes by SMTP here
        with self.session() as session:
            deal = Deal(workspace_id=self.workspace_id, name="Offer", contact_id=self.contact_id)
            customer = Customer(workspace_id=self.workspace_id, name="Acme")
            session.add_all([deal, customer])
            session.commit()
            self.deal_id, self.customer_id = deal.id, customer.id

    @property
    def links(self) -> tuple[Link, ...]:
        ids = {"contact": self.contact_id, "deal": self.deal_id, "customer": self.customer_id}
        return tuple(Link(kind=kind, field=f"{kind}_id", id=id_) for kind, id_ in ids.items())

    def _mailer(self) -> Mailer:
        credentials = {"server_token": self.postmark.server_token}
        return Mailer(
            id=self.mailer_id,
            workspace_id=self.workspace_id,
            provider="postmark",
            name="test",
            from_addresses=["hello@demo.test"],
            domains=["demo.test"],
            sealed_credentials=self.runtime.vault.seal(mailer_purpose(self.mailer_id), credentials),
            base_url=self.postmark.url,
            hook_token=str(self.mailer_id),
            is_default=True,
        )

    def sent(self, *recipients: str, recorded: bool = True, **fields: Any) -> tuple[Accepted, Mail]:
        """Sends one mail through the worker's steps; the mail as Postmark has it."""
        accepted = self.submit(*(recipients or ("ann@example.com",)), **fields)
        self.deliver_all()
        if recorded:
            self.record_all()
        return accepted, self.postmark.mails[-1]

    def hand_over(self, *bodies: dict[str, Any], **headers: str) -> None:
        """The provider's calls, stored as the hook does."""
        mailer = self.runtime.providers.mailer(self.mailer_id)
        assert mailer is not None
        for body in bodies:
            request = HookRequest(headers=headers, query={}, body=json.dumps(body).encode())
            with self.runtime.engine.begin() as connection:
                store(connection, self.runtime.vault, mailer, request, mailer.provider.parse_events(request))

    def apply(self) -> None:
        """Applies what is due until nothing is."""
        while apply_reports(self.runtime):
            pass

    def told(self, *bodies: dict[str, Any]) -> None:
        self.hand_over(*bodies)
        self.apply()

    def events(self, message_id: UUID) -> list[str]:
        found = self.rows("select type from event where message_id = :id order by seq", id=message_id)
        return [row["type"] for row in found]

    def suppressed(self) -> dict[str, str]:
        found = self.rows("select address, reason from suppression where workspace_id = :w")
        return {row["address"]: row["reason"] for row in found}
