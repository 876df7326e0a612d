"""Who opened or clicked: a person, or a machine that opens and follows everything.

Only what can be told is told. Image proxies of webmailers open when their user does, so they count as people, with
the proxy named. Apple's Mail Privacy Protection opens beforehand from the user's own network and says no more than
``Mozilla/5.0``: named, not judged.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.storable import text

PROXIES: dict[str, str] = {
    "googleimageproxy": "gmail",
    "yahoomailproxy": "yahoo",
}
"""Part of the user agent, lower case -> whose proxy fetches images for its users."""

APPLE_AGENT = "Mozilla/5.0"

_MACHINE = re.compile(
    r"(?<!cu)bot\b|bot[/_-]|crawler|spider|slurp|scanner|preview|prefetch|headless|phantomjs|"
    r"^(?:curl|wget|python|java|go-http-client|okhttp|axios|node|ruby|perl|php|apache-httpclient|libwww|aiohttp)\b|"
    r"python-requests|python-urllib|facebookexternalhit|whatsapp|googlesafety|google-safety|safebrowsing|"
    r"barracuda|mimecast|proofpoint|symantec|messagelabs|ironport|fireeye|trendmicro|trend micro|sophos|fortinet|"
    r"fortiguard|zscaler|cloudmark|bitdefender|kaspersky|forcepoint|websense|virustotal|urlscan|"
    r"office existence discovery",
    re.IGNORECASE,
)
"""User agents of crawlers, previews, libraries and the scanners of mail gateways."""

_PREFETCH_HEADERS = ("purpose", "sec-purpose", "x-purpose", "x-moz")
_PREFETCH = ("prefetch", "preview", "prerender")
LONGEST_AGENT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """What a request says of itself. ``reason`` is set exactly for machines."""

    user_agent: str
    reason: str | None = None
    proxy: str | None = None

    def data(self, reason: str | None = None) -> dict[str, Any]:
        """The part of an event's data that tells who it was. ``reason``: what else speaks for a machine."""
        why = self.reason or reason
        told = {"user_agent": self.user_agent, "is_bot": why is not None, "bot_reason": why}
        return told | ({"proxy": self.proxy} if self.proxy else {})


def visitor(headers: Mapping[str, str]) -> Visitor:
    """Judges by headers; names in lower case (or a case-insensitive mapping)."""
    agent = text(headers.get("user-agent", ""), LONGEST_AGENT)
    lowered = agent.lower()
    for part, proxy in PROXIES.items():
        if part in lowered:
            return Visitor(user_agent=agent, proxy=proxy)
    proxy_name = "apple_mail_privacy" if agent == APPLE_AGENT else None
    return Visitor(user_agent=agent, reason=_reason(agent, headers), proxy=proxy_name)


def _reason(agent: str, headers: Mapping[str, str]) -> str | None:
    if any(word in headers.get(name, "").lower() for name in _PREFETCH_HEADERS for word in _PREFETCH):
        return "prefetch"
    if not agent:
        return "no_user_agent"
    return "user_agent" if _MACHINE.search(agent) else None
