"""What goes wrong with running emulators, said over HTTP: for `postroad emulate`, and for tests in any language.

POST /{provider}/fail    {"faults": ["429", "429"], "path": "/email/batch"}       these calls next, one fault each
POST /{provider}/fail    {"faults": ["close"], "chance": 0.05, "seed": 7}         from now on, each with this chance
POST /{provider}/revoke                                                           its credentials work no longer
POST /{provider}/set     {"break_after": 3}                                       one of the emulator's `KNOBS`
POST /{provider}/hooks   {"url": "http://...", "twice": true, "shuffled": true}   posts the webhooks it owes
GET  /{provider}/ledger                                                           what it took, what it met

A fault is a word of `providers.emulators.http.Fault`; for SMTP an object: {"at": "dot", "does": "close"}.
"""

from collections.abc import Callable, Mapping
from typing import Any

from providers.emulators.http import Call, Emulator, Fault, Reply
from providers.emulators.smtp import Does, SmtpEmulator, Stage
from providers.emulators.smtp import Fault as SmtpFault

Asked = Mapping[str, Any]


class Control(Emulator):
    """One server for all that run. Answers 404 to what is not there, and 400 with a reason to what cannot be done."""

    def __init__(self, emulators: Mapping[str, Emulator | SmtpEmulator], *, port: int = 0) -> None:
        super().__init__(port=port)
        self._emulators = emulators

    def error(self, status: int) -> Reply:
        return Reply(status, {"error": f"emulated error {status}"})

    def answer(self, call: Call) -> Reply:
        provider, _, verb = call.path.strip("/").partition("/")
        emulator, act = self._emulators.get(provider), _VERBS.get((call.method, verb))
        if emulator is None or act is None:
            ways = ", ".join(f"{method} /{{provider}}/{name}" for method, name in _VERBS)
            return Reply(404, {"error": f"there are {ways}; of providers {', '.join(self._emulators)}"})
        asked = call.json if call.body else {}
        if not isinstance(asked, dict):
            return Reply(400, {"error": "the body is no JSON object"})
        try:
            return Reply(200, act(emulator, asked))
        except KeyError as error:
            return Reply(400, {"error": f"{error} is missing"})
        except (AttributeError, OSError, TypeError, ValueError) as error:
            return Reply(400, {"error": str(error)})


def _fail(emulator: Emulator | SmtpEmulator, asked: Asked) -> Asked:
    over_http = isinstance(emulator, Emulator)
    where = {"path": str(asked.get("path", ""))} if over_http else {}
    faults: list[Any] = [Fault(one) if over_http else _smtp_fault(one) for one in asked["faults"]]
    if "chance" in asked:
        chances = dict.fromkeys(faults, float(asked["chance"]))
        emulator.fail_at_random(chances, seed=int(asked.get("seed", 0)), **where)
    else:
        emulator.fail(*faults, **where)
    return {}


def _smtp_fault(one: Asked) -> SmtpFault:
    return SmtpFault(Stage(one["at"]), Does(one["does"]), str(one.get("reply", "")), bool(one.get("store", False)))


def _revoke(emulator: Emulator | SmtpEmulator, _: Asked) -> Asked:
    _over_http(emulator).revoke()
    return {}


def _set(emulator: Emulator | SmtpEmulator, asked: Asked) -> Asked:
    knobs = _over_http(emulator).KNOBS
    unknown = sorted(set(asked) - set(knobs))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be set; {', '.join(knobs)} can")
    values = {name: knobs[name](value) for name, value in asked.items()}
    for name, value in values.items():
        setattr(emulator, name, value)
    return {}


def _hooks(emulator: Emulator | SmtpEmulator, asked: Asked) -> Asked:
    how = {name: bool(asked.get(name, False)) for name in ("twice", "shuffled")}
    return {"statuses": _over_http(emulator).post_hooks(str(asked["url"]), **how)}


def _ledger(emulator: Emulator | SmtpEmulator, _: Asked) -> Asked:
    with emulator.lock:
        met = [{"fault": _written(fault), "times": times} for fault, times in emulator.met.items()]
        return {"delivered": dict(emulator.ledger), "met": met}


def _written(fault: Fault | SmtpFault) -> Any:
    if isinstance(fault, Fault):
        return fault.value
    return {"at": fault.at, "does": fault.does, "reply": fault.reply, "store": fault.store}


def _over_http(emulator: Emulator | SmtpEmulator) -> Emulator:
    if isinstance(emulator, SmtpEmulator):
        raise TypeError("an SMTP server has no webhooks, and here neither a login nor anything to set")
    return emulator


_VERBS: dict[tuple[str, str], Callable[[Emulator | SmtpEmulator, Asked], Asked]] = {
    ("POST", "fail"): _fail,
    ("POST", "revoke"): _revoke,
    ("POST", "set"): _set,
    ("POST", "hooks"): _hooks,
    ("GET", "ledger"): _ledger,
}
