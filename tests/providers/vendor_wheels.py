"""The providers' own client libraries as wheels that are imported from as they are, without being installed.

They are large (Microsoft's has 17,000 files) and bring what no environment wants (SparkPost's a package ``test``). They are
fetched once into the user's cache, pinned by hash; without PyPI whoever asks for them is skipped.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

PINS = Path(__file__).with_suffix(".txt")


def vendor_wheels(*names: str) -> list[str]:
    """Paths of the wheels whose file names begin like this. Skips the test where they cannot be had."""
    kept = _kept()
    if kept is None:
        pytest.skip("the providers' libraries cannot be fetched from PyPI")
    return [str(wheel) for wheel in sorted(kept.glob("*.whl")) if wheel.name.startswith(names)]


@cache
def _kept() -> Path | None:
    """Where they lie; None if they could not be fetched, which is tried once."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postroad-tests"
    kept = root / f"vendor-{hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]}"
    if not kept.exists():
        with suppress(subprocess.SubprocessError, OSError):
            _fetch(root, kept)
    return kept if kept.exists() else None  # or another process brought them


def _fetch(root: Path, kept: Path) -> None:
    flags = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "0", "--timeout", "10"]
    exactly = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(PINS)]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        whole = Path(folder, "whole")
        pip = [sys.executable, "-m", "pip", "download", *flags, *exactly, "--dest", str(whole)]
        subprocess.run(pip, check=True, capture_output=True, timeout=120)
        whole.rename(kept)
