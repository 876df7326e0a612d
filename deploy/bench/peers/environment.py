"""A virtual environment that is thrown away after the bench: what the peers need is no part of our installation."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VENV_SECONDS = 120.0
INSTALL_SECONDS = 300.0
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "--retries", "1")


class NotInstalledError(Exception):
    """A peer's libraries cannot be had. Says why."""


def python_with(requirements: Sequence[str], folder: Path) -> str:
    """The Python that has ``requirements``: our own if there are none, else that of ``folder``, made when missing.

    Raises NotInstalledError where the registry cannot be reached or has no wheel for this machine.
    """
    if not requirements:
        return sys.executable
    python = folder / "bin" / "python"
    if not python.exists():
        _run((sys.executable, "-m", "venv", str(folder)), VENV_SECONDS)
    _run((str(python), "-m", "pip", "install", *PIP_OPTIONS, *requirements), INSTALL_SECONDS)
    return str(python)


def _run(argv: Sequence[str], seconds: float) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotInstalledError(f"not installed within {seconds:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotInstalledError(f"not installed: {said[-1]}")
