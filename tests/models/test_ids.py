"""The ids that the application makes."""

import subprocess
import sys

from models.base import uuid7

RANDOM_BITS = (1 << 62) - 1

# In a process of its own: this one has threads, and a fork of threads may hang.
_FORKED = """
import os
from models.base import uuid7
uuid7()
child = os.fork()
print(uuid7().int & (1 << 62) - 1, flush=True)
if child:
    os.waitpid(child, 0)
"""


def test_an_id_says_its_version_and_is_random_in_its_last_62_bits() -> None:
    ids = [uuid7() for _ in range(2_000)]
    assert {(id_.version, id_.variant) for id_ in ids} == {(7, "specified in RFC 4122")}
    assert len({id_.int & RANDOM_BITS for id_ in ids}) == len(ids)


def test_processes_that_part_by_a_fork_share_no_random_bits() -> None:
    found = subprocess.run((sys.executable, "-c", _FORKED), capture_output=True, text=True, check=True, timeout=60)
    assert len(set(found.stdout.split())) == 2
