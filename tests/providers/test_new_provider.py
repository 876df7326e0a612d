"""CONTRIBUTING's new provider keeps the contract, as it stands on the page."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from providers import ADAPTERS
from tests.providers import benches, test_contract

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCKS = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
"""File -> its code on the page."""

Case = tuple[Callable[..., None], dict[str, Any]]


def _cases() -> Iterator[Case]:
    """Every test of the contract that is asked of a bench, with each of its parameters."""
    for name, function in vars(test_contract).items():
        code = getattr(function, "__code__", None)
        if name.startswith("test_") and code is not None and "bench" in code.co_varnames[0]:
            marks = [mark.args for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
            choices = [[_named(names, values) for values in several] for names, several in marks]
            for chosen in itertools.product(*choices):
                yield function, {key: value for one in chosen for key, value in one.items()}


def _named(names: str | tuple[str, ...], values: Any) -> dict[str, Any]:
    return {names: values} if isinstance(names, str) else dict(zip(names, values, strict=True))


@pytest.fixture
def courier(monkeypatch: pytest.MonkeyPatch) -> type[benches.Bench]:
    """The bench of the page, with adapter and emulator where the page says they are."""
    assert list(BLOCKS) == ["providers/courier.py", "providers/emulators/courier.py", "tests/providers/benches.py"]
    for path, code in BLOCKS.items():
        name = path.removesuffix(".py").replace("/", ".")
        module = ModuleType(name)
        if name in sys.modules:
            module.__dict__.update({**vars(sys.modules[name]), **vars(sys.modules["providers.emulators.courier"])})
        else:
            monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, path, "exec"), module.__dict__)
    monkeypatch.setitem(ADAPTERS, "courier", "providers.courier:Courier")
    bench: type[benches.Bench] = module.__dict__["CourierBench"]
    return bench


def test_the_contract_is_kept_by_the_provider_of_the_page(courier: type[benches.Bench]) -> None:
    asked = list(_cases())
    assert len(asked) > 40
    for function, arguments in asked:
        with courier() as bench:
            function(bench, **arguments)


def test_the_contract_finds_a_provider_that_drops_a_header(
    courier: type[benches.Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = courier.arrival

    def without(bench: benches.Bench) -> Any:
        found = arrival(bench)
        found.headers.pop("x-campaign", None)  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(courier, "arrival", without)
    with courier() as bench, pytest.raises(AssertionError):
        test_contract.test_what_a_mail_need_not_have_is_carried_or_refused_and_never_dropped(bench, "own header")
