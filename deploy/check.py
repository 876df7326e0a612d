"""One finding of `postroad doctor`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """``fix`` says what to do where it is not ok."""

    name: str
    ok: bool
    found: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"check": self.name, "ok": self.ok, "found": self.found, "fix": self.fix or None}
