"""Puts mails into a peer's queue when told to.

Run as ``python -m programs.submit MODULE``. Makes the file ``ready`` in the job's folder when prepared; then submits,
for each line ``FIRST END`` on its standard input, the mails from the first to before the end.
"""

import sys
from importlib import import_module
from pathlib import Path

from .mail import JOB


def main() -> None:
    program = import_module(f".{sys.argv[1]}", __package__)
    if hasattr(program, "prepare"):
        program.prepare()
    (Path(JOB.folder) / "ready").touch()
    for line in sys.stdin:
        first, end = (int(word) for word in line.split())
        program.submit(JOB.people[first:end])


if __name__ == "__main__":
    main()
