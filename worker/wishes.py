"""What recipients do not want: mail at all, mail of one list, or to be watched as they read it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection

from models.arrays import Words
from models.content import SendSettings
from models.database import fetch

EVERYTHING = ""
"""The list that all mail of a workspace belongs to."""

TRACKING = "$tracking"
"""The list of those who get their mail without pixel and tracked links. No mail can name it as its own."""

_LISTED = """
    select address, list_id, reason from suppression
    where workspace_id = %s and list_id = any(%s) and address = any(%s) order by address
"""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Of some recipients, as far as the settings of their mail made it worth asking."""

    listed: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """List -> address in lower case -> reason."""

    def reason(self, address: str, list_id: str) -> str | None:
        """The reason for which the address gets no mail of this list. That it gets no mail at all comes first."""
        key = address.lower()
        return self.listed.get(EVERYTHING, {}).get(key) or self.listed.get(list_id, {}).get(key)

    def why_not(self, address: str, list_id: str) -> str | None:
        """The same in words."""
        if not self.listed or (reason := self.reason(address, list_id)) is None:
            return None
        everywhere = not list_id or address.lower() in self.listed.get(EVERYTHING, {})
        return f"on the suppression list: {reason}" if everywhere else f"on the suppression list of {list_id}: {reason}"

    def untracked(self, recipients: Iterable[str]) -> bool:
        """Whether a mail that these share must not be tracked: because one of them does not want it."""
        listed = self.listed.get(TRACKING)
        return listed is not None and any(address.lower() in listed for address in recipients)


def read_wishes(
    connection: Connection, workspace_id: UUID, addresses: Collection[str], settings: Iterable[SendSettings]
) -> Wishes:
    """What stands on the suppression list of these addresses, for mail with these settings."""
    lists = {EVERYTHING}
    for each in settings:
        lists.add(each.list_id)
        if each.open_tracking or each.click_tracking:
            lists.add(TRACKING)
    keys = Words({address.lower() for address in addresses})
    rows = fetch(connection, _LISTED, [workspace_id, list(lists), keys])
    listed: dict[str, dict[str, str]] = {}
    for address, list_id, reason in rows:
        listed.setdefault(list_id, {})[address] = reason
    return Wishes(listed)
