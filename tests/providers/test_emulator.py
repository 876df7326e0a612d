"""The base of the emulated providers: faults in the order of the script, dice that repeat, webhooks late and twice."""

import http.client
import json
from collections import Counter

from providers.emulators.http import Call, Emulator, Fault, Hook, Reply


class Counting(Emulator):
    """Delivers whatever it is sent."""

    def error(self, status: int) -> Reply:
        return Reply(status, {"emulated": status})

    def answer(self, call: Call) -> Reply:
        self.ledger[call.body.decode()] += 1
        return Reply(200, {"ok": True})


def post(emulator: Emulator, body: str, path: str = "/send") -> tuple[int, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=5)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()


def test_scripted_faults_are_met_once_each_in_order_and_by_path() -> None:
    with Counting() as emulator:
        emulator.fail(Fault.THROTTLED, Fault.ERROR_500, path="/send")
        emulator.fail(Fault.UNAUTHORIZED, path="/other")
        statuses = [
            post(emulator, "a")[0],
            post(emulator, "a", "/other")[0],
            post(emulator, "a")[0],
            post(emulator, "a")[0],
        ]
    assert statuses == [429, 401, 500, 200]


def test_only_an_accepting_fault_delivers() -> None:
    with Counting() as emulator:
        emulator.fail(Fault.ACCEPT_THEN_504, Fault.PROXY_503, Fault.ERROR_503)
        statuses = [post(emulator, ref)[0] for ref in "abc"]
    assert statuses == [504, 503, 503]
    assert emulator.ledger == {"a": 1}
    assert emulator.delivered_once(["a"])
    assert not emulator.delivered_once(["a", "b"])


def test_a_mail_delivered_twice_or_unasked_is_told() -> None:
    with Counting() as emulator:
        post(emulator, "a")
        assert not emulator.delivered_once([])
        post(emulator, "a")
        assert not emulator.delivered_once(["a"])


def test_the_same_seed_meets_the_same_faults() -> None:
    def statuses(seed: int) -> list[int]:
        with Counting(seed=seed) as emulator:
            emulator.fail_at_random({Fault.THROTTLED: 0.3, Fault.ERROR_500: 0.3}, path="/send")
            assert post(emulator, "x", "/other")[0] == 200
            return [post(emulator, "a")[0] for _ in range(40)]

    first = statuses(7)
    assert first == statuses(7)
    assert first != statuses(8)
    assert set(first) == {200, 429, 500}


def test_a_429_says_when_to_come_back_if_it_is_told_to() -> None:
    with Counting() as emulator:
        emulator.fail(Fault.THROTTLED, Fault.THROTTLED)
        assert post(emulator, "a")[1]["Retry-After"] is None
        emulator.retry_after = "9"
        assert post(emulator, "a")[1]["Retry-After"] == "9"


def test_webhooks_come_late_twice_and_out_of_order() -> None:
    with Counting() as provider, Counting() as customer:
        provider.hooks = [Hook(json.dumps(number).encode(), {"X-Sign": "s"}) for number in range(8)]
        customer.fail(Fault.UNAUTHORIZED)
        statuses = provider.post_hooks(f"{customer.url}/hook?token=t", twice=True, shuffled=True)
        assert statuses == [401] + [200] * 15
        numbers = [call.json for call in customer.calls]
        assert Counter(numbers) == dict.fromkeys(range(8), 2)
        assert numbers != sorted(numbers)
        assert customer.calls[0].path == "/hook"
        assert customer.calls[0].headers["x-sign"] == "s"
        assert provider.post_hooks(customer.url) == []
