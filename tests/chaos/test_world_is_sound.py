"""After everything else was broken: the rows still say what they must."""

import pytest
import requests
from sqlalchemy import create_engine

from tests.chaos.world import World
from worker.invariants import INVARIANTS, violations

pytestmark = pytest.mark.stack


def test_every_invariant_holds_after_all_of_it(world: World) -> None:
    engine = create_engine(world.stack.json["database_url"].replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        broken = {finding.name: finding.broken for finding in violations(engine)}
    finally:
        engine.dispose()
    assert broken == dict.fromkeys(INVARIANTS, 0)


def test_the_metrics_say_so(world: World) -> None:
    shown = requests.get(f"{world.stack.json['api']}/metrics", headers=world.stack.auth, timeout=10).text
    found = [line for line in shown.splitlines() if line.startswith("postroad_invariant_violations{")]
    assert sorted(found) == sorted(f'postroad_invariant_violations{{rule="{name}"}} 0.0' for name in INVARIANTS)
