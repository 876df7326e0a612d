"""IP pools of an SMTP mailer: which way a batch goes out."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from providers.base import Result
from providers.emulators.smtp import Does, Fault, SmtpEmulator, Stage
from providers.guard import Guard
from providers.smtp import Smtp
from providers.smtp_login import Unavailable
from providers.smtp_pools import DIRECT, Pools, Route
from tests.providers.samples import mail
from tests.providers.smtp_samples import account, results


def pooled(url: str, pools: dict[str, Any], connections: int = 4, **credentials: Any) -> Smtp:
    return Smtp(replace(account(url, connections=connections, **credentials), ip_pools=pools), command_timeout=1.0)


def to(server: SmtpEmulator) -> list[dict[str, Any]]:
    return [{"host": "127.0.0.1", "port": server.port}]


@pytest.fixture
def relay() -> Iterator[SmtpEmulator]:
    with SmtpEmulator() as running:
        yield running


@contextmanager
def doorman() -> Iterator[tuple[int, list[str]]]:
    """A server that notes where connections come from, and sends them away."""
    seen: list[str] = []

    def serve() -> None:
        while True:
            sock, (peer, _) = listener.accept()
            with sock:
                if peer == "127.0.0.9":
                    return
                seen.append(peer)
                sock.sendall(b"554 5.3.2 closed\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], seen
        socket.create_connection(listener.getsockname(), source_address=("127.0.0.9", 0)).close()
        thread.join(5)


def test_c21_mail_of_a_pool_goes_through_its_relay_and_other_mail_does_not(
    server: SmtpEmulator, relay: SmtpEmulator
) -> None:
    provider = pooled(server.url, {"bulk": to(relay)})
    emails = [mail(ip_pool="bulk"), mail(), mail(ip_pool="bulk")]
    assert results(provider.send(emails)) == ["accepted"] * 3
    assert server.delivered_once([emails[1].rfc_message_id])
    assert relay.delivered_once([emails[0].rfc_message_id, emails[2].rfc_message_id])
    provider.close()


def test_each_way_keeps_its_own_connections_and_all_together_stay_within_the_cap(
    server: SmtpEmulator, relay: SmtpEmulator
) -> None:
    provider = pooled(server.url, {"bulk": to(relay)}, connections=2)
    for _ in range(5):
        provider.send([mail(ip_pool="bulk"), mail()])
    assert (server.connections, relay.connections) == (1, 1)
    provider.close()
    single = pooled(server.url, {"bulk": to(relay)}, connections=1)
    for _ in range(2):
        assert results(single.send([mail(ip_pool="bulk"), mail()])) == ["accepted"] * 2
    assert (server.connections, relay.connections) == (3, 3)
    single.close()


def test_a_member_is_drawn_as_often_as_its_weight_says() -> None:
    pools = Pools({"bulk": [{"source": "192.0.2.1", "weight": 9}, {"source": "192.0.2.2"}]})
    drawn = Counter(pools.draw("bulk").source for _ in range(2000))
    assert 0.85 < drawn["192.0.2.1"] / 2000 < 0.95
    assert drawn["192.0.2.2"] > 0


def test_mail_without_a_pool_goes_the_mailers_own_way() -> None:
    assert Pools({"bulk": [{"source": "192.0.2.1"}]}).draw("") == DIRECT
    assert Pools({}).draw("bulk") == DIRECT


def test_a_pool_that_was_taken_away_keeps_its_mail_back() -> None:
    with pytest.raises(Unavailable) as refused:
        Pools({"bulk": [{"source": "192.0.2.1"}]}).draw("other")
    assert refused.value.outcome.result is Result.TRANSIENT
    assert "'other'" in refused.value.outcome.detail


def test_a_source_address_is_where_the_connection_comes_from() -> None:
    with doorman() as (port, seen):
        provider = pooled(f"smtp://127.0.0.1:{port}", {"own": [{"source": "127.0.0.3"}]})
        provider.send([mail(ip_pool="own")])
        provider.send([mail()])
        provider.close()
    assert seen == ["127.0.0.3", "127.0.0.1"]


def test_a_source_address_that_this_machine_lacks_is_a_plain_answer(server: SmtpEmulator) -> None:
    provider = pooled(server.url, {"own": [{"source": "192.0.2.77"}]})
    (outcome,) = provider.send([mail(ip_pool="own")])
    assert outcome.result is Result.TRANSIENT
    assert "cannot connect" in outcome.detail
    assert provider.check().result is Result.TRANSIENT
    provider.close()


def test_a_relay_is_guarded_like_the_mailers_own_server(server: SmtpEmulator) -> None:
    guarded = replace(
        account(server.url, guard=Guard(frozenset({"127.0.0.1"}))), ip_pools={"in": [{"host": "10.0.0.1"}]}
    )
    (outcome,) = Smtp(guarded).send([mail(ip_pool="in")])
    assert outcome.result is not Result.ACCEPTED
    assert "POSTROAD_MAILER_ALLOWED_HOSTS" in outcome.detail


def test_a_test_of_the_mailer_tries_every_way(server: SmtpEmulator, relay: SmtpEmulator) -> None:
    provider = pooled(server.url, {"bulk": to(relay)})
    assert provider.check().result is Result.ACCEPTED
    relay.fail(Fault(Stage.EHLO, Does.REPLY, "554 5.7.1 not you"))
    assert provider.check().result is Result.TRANSIENT
    provider.close()


def test_a_relay_keeps_the_port_of_the_mailer_unless_it_names_its_own() -> None:
    provider = pooled("smtp://mail.demo.test:2525", {})
    assert Route(host="relay.demo.test").applied(provider.login()).port == 2525
    assert Route(host="relay.demo.test", port=26).applied(provider.login()).port == 26
