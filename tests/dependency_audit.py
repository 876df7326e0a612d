"""Looks the locked versions up among known vulnerabilities: part of `make check`.

Ends with 1 if one is known, and with 0 otherwise. Where nobody can be asked (no network, a package index without such
data, no pip-audit) it says that nothing was audited, and why: a check that cannot be made is no fault of the code.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOCK = Path(__file__).with_name("requirements.txt")
PROGRAM = (sys.executable, "-m", "pip_audit")
SOURCES = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))
"""Who is asked, one after the other: the options by which pip-audit asks them."""
CANARY = "jinja2==2.11.0"
"""Known to be vulnerable (PYSEC-2021-66). A mirror that knows nothing of it has no data, whatever it answers."""
OPTIONS = ("--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off", "--timeout", "10")
LONGEST_SECONDS = 180


class Unavailable(Exception):
    """Nobody could be asked; the text says why."""


def main(lock: Path = LOCK, sources: Sequence[Sequence[str]] = SOURCES, program: Sequence[str] = PROGRAM) -> int:
    """The exit code. Prints one line, or one for each vulnerability. sources: as `SOURCES`."""
    pinned = pins(lock.read_text())
    try:
        command = [*program, *informed(program, sources)]
        answers = [answer for group in groups(pinned) for answer in ask(command, group)]
    except Unavailable as reason:
        return _say(f"dependency audit: NOTHING WAS AUDITED: {reason}")
    found = [f"{name} {version}: {known}" for name, version, known in vulnerabilities(answers)]
    if found:
        _say("known vulnerabilities; raise the versions in pyproject.toml and run make lock:", *found)
        return 1
    return _say(f"dependency audit: {len(answers)} of {len(pinned)} packages looked up, no vulnerability is known")


def pins(lock: str) -> list[str]:
    """``name==version`` of every package in a lock file, without markers and hashes."""
    return re.findall(r"^([A-Za-z0-9._-]+(?:\[[\w,-]+\])?==[^\s;\\]+)", lock, re.MULTILINE)


def groups(pinned: Sequence[str]) -> list[list[str]]:
    """The pins in groups with each package once: one with other versions for other Pythons stands in several."""
    found: list[dict[str, str]] = []
    for pin in pinned:
        name = pin.partition("==")[0]
        group = next((group for group in found if name not in group), None)
        if group is None:
            found.append(group := {})
        group[name] = pin
    return [list(group.values()) for group in found]


def informed(program: Sequence[str], sources: Sequence[Sequence[str]]) -> Sequence[str]:
    """The first source that knows the canary. Raises Unavailable, with what each said, if none does."""
    refusals = []
    for source in sources:
        try:
            if vulnerabilities(ask([*program, *source], [CANARY])):
                return source
            refusals.append(f"{source[1]} does not know that {CANARY} is vulnerable")
        except Unavailable as reason:
            refusals.append(f"{source[1]}: {reason}")
    raise Unavailable("; ".join(refusals))


def ask(command: Sequence[str], pinned: Sequence[str]) -> list[dict[str, Any]]:
    """pip-audit's entries for those that could be looked up. Raises Unavailable if none could."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pinned))
        file.flush()
        try:
            argv = [*command, "--requirement", file.name, *OPTIONS]
            ended = subprocess.run(argv, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(type(error).__name__) from error
    try:
        entries: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise Unavailable((ended.stderr.strip().splitlines() or ["no answer"])[-1][:200]) from None
    known = [entry for entry in entries if "vulns" in entry]
    if not known:
        raise Unavailable("no data about any package")
    return known


def vulnerabilities(answers: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, version, and what is known with the versions that mend it."""
    return [
        (
            entry["name"],
            entry["version"],
            f"{known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}",
        )
        for entry in answers
        for known in entry["vulns"]
    ]


def _say(*lines: str) -> int:
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
