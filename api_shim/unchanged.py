"""The default of fields in bodies that change something."""

from typing import Any

UNCHANGED: Any = None
"""Default of a field that a change leaves as it is; unlike an optional field it does not take ``null``."""
