"""Rate limits: the script alone on a real Redis, and what happens while Redis is away."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fakeredis
import pytest
import redis

from api_shim.errors import ApiError
from api_shim.limits import DAY, SECOND, Limit, Limiter
from worker.settings import Settings


def settings(policy: str = "open") -> Settings:
    return Settings(database_url="postgresql://x", secret_keys="x", limits_when_redis_is_down=policy)


def limit(count: int, period: int = DAY, cost: int = 1, name: str = "per_day") -> Limit:
    return Limit(name, f"test:{name}:{count}:{period}", count, period, cost)


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def limiter(server: redis.Redis) -> Limiter:
    return Limiter(server, settings())


def test_exactly_as_many_pass_as_the_limit_allows_however_many_come_at_once(limiter: Limiter) -> None:
    def passes(_: int) -> bool:
        try:
            limiter.take([limit(50)])
        except ApiError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(passes, range(400))) == 50


def test_what_remains_is_counted_down_and_a_look_costs_nothing(limiter: Limiter) -> None:
    for expected in (9, 8, 7):
        standing = limiter.take([limit(10)])
        assert standing is not None
        assert standing.remaining == expected
    looked = limiter.take([limit(10, cost=0)])
    assert looked is not None
    assert looked.remaining == 7


def test_one_limit_that_refuses_leaves_the_others_untouched(limiter: Limiter) -> None:
    wide, narrow = limit(100, name="wide"), limit(1, name="narrow")
    limiter.take([wide, narrow])
    with pytest.raises(ApiError) as refused:
        limiter.take([wide, narrow])
    assert refused.value.details["limit"] == "narrow"
    standing = limiter.take([limit(100, cost=0, name="wide")])
    assert standing is not None
    assert standing.remaining == 99


def test_a_request_of_many_mails_takes_all_of_them_from_the_day_or_none(limiter: Limiter) -> None:
    with pytest.raises(ApiError):
        limiter.take([limit(10, cost=11)])
    limiter.take([limit(10, cost=10)])
    with pytest.raises(ApiError):
        limiter.take([limit(10, cost=1)])


def test_after_the_wait_that_was_named_a_request_passes(limiter: Limiter) -> None:
    fast = limit(2, 3 * SECOND, name="fast")
    limiter.take([fast])
    limiter.take([fast])
    with pytest.raises(ApiError) as refused:
        limiter.take([fast])
    assert refused.value.headers["Retry-After"] == "2"
    time.sleep(2.0)
    assert limiter.take([fast]) is not None


def away() -> redis.Redis:
    server = fakeredis.FakeServer()
    server.connected = False
    return fakeredis.FakeRedis(server=server)


def test_without_redis_requests_pass_uncounted_where_limits_are_open() -> None:
    assert Limiter(away(), settings("open")).take([limit(1)]) is None


def test_without_redis_requests_are_refused_with_503_where_limits_are_closed() -> None:
    limiter = Limiter(away(), settings("closed"))
    for _ in range(2):  # the second one does not even ask
        with pytest.raises(ApiError) as refused:
            limiter.take([limit(1)])
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
