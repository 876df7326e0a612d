"""The page about reliability names a proof for every scenario, and the proofs are there."""

import re

from tests.docs.pages import BY_NAME, ROOT

ROWS = {
    found[1]: found[2]
    for found in re.finditer(r"^\| (R\d+) \| [^|]+ \| ([^|]+) \|$", BY_NAME["docs/reliability.md"].text, re.MULTILINE)
}


def test_every_scenario_has_its_row() -> None:
    assert list(ROWS) == [f"R{number}" for number in range(1, 36)]


def test_every_row_names_tests_that_exist_or_says_why_it_is_not_run() -> None:
    missing = []
    for number, proof in ROWS.items():
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", proof)
        missing += [(number, name) for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text()]
        if not named:
            assert proof.startswith("not run: ")
    assert missing == []
