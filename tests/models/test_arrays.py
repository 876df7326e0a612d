"""Lists that go to PostgreSQL in one piece arrive as they were."""

import psycopg
import pytest

from models.arrays import Ids, Words
from models.base import uuid7


@pytest.mark.parametrize("values", [Ids(), Ids([uuid7()]), Ids(uuid7() for _ in range(1_000)),
                                    Words(), Words(["", "ann@example.com", 'Jörg, "{}" \\ null', "NULL", "😀" * 300])])  # fmt: skip
def test_a_list_arrives_as_it_was(database_url: str, values: Ids | Words) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        query = "select %s, array_ndims(%s) = 1 and array_lower(%s, 1) = 1"
        [(found, is_plain)] = connection.execute(query, (values, values, values)).fetchall()
    assert found == list(values)
    assert is_plain or not values


def test_lists_are_of_the_type_that_they_say(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        query = "select pg_typeof(%s)::text, pg_typeof(%s)::text"
        assert connection.execute(query, (Ids(), Words())).fetchone() == ("uuid[]", "text[]")
