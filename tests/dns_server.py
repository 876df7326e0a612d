"""A DNS server on loopback that answers what it is told."""

import socket
import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT = "silent"
BROKEN = "broken"

Zone = Mapping[str, str | Mapping[str, str]]
"""Domain -> its records by type, or ``SILENT`` (never answers) or ``BROKEN`` (SERVFAIL). All others do not exist."""


class DnsServer:
    """Answers over UDP until it is left."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: Counter[str] = Counter()
        """Questions by domain."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="dns-server")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, sender = self._socket.recvfrom(4096)
            if not packet:
                return
            answer = self._answer(dns.message.from_wire(packet))
            if answer is not None:
                self._socket.sendto(answer.to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        [question] = query.question
        domain = question.name.to_text(omit_final_dot=True)
        self.asked[domain] += 1
        held = self.zone.get(domain)
        if held == SILENT:
            return None
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if isinstance(held, Mapping):
            kind = dns.rdatatype.to_text(question.rdtype)
            if kind in held:
                answer.answer.append(dns.rrset.from_text(question.name, 300, "IN", kind, held[kind]))
        else:
            answer.set_rcode(dns.rcode.SERVFAIL if held == BROKEN else dns.rcode.NXDOMAIN)
        return answer
