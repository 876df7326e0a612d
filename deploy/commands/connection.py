"""Which server the verbs talk to, and with which key.

Asked in this order: ``--url`` and ``--api-key``, ``POSTROAD_URL`` and ``POSTROAD_API_KEY``, a profile, the stack that
``postroad up`` runs in this folder. A key from a file is only ever sent to the URL that stands beside it.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

STACK_JSON = Path(".postroad/stack.json")
DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Root of an API and a key for it."""

    url: str
    key: str = field(repr=False)


def config_file() -> Path:
    root = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(root) / "postroad" / "config.toml"


def connect_to(url: str | None, key: str | None, profile: str | None) -> Connection:
    """The server to talk to; what is given here wins over the environment, and that over files.

    Raises click.UsageError, which says what to give.
    """
    given_url, given_key = url or os.environ.get("POSTROAD_URL"), key or os.environ.get("POSTROAD_API_KEY")
    if profile:  # a flag too: it wins over the environment
        given_url, given_key = url, key
    if given_url and given_key:
        return _checked(given_url, given_key)
    kept = _profile(profile) or ({} if profile else _stack())
    found_url = given_url or kept.get("url")
    if not found_url:
        raise click.UsageError(
            "No server to talk to. Give --url and --api-key, set POSTROAD_URL and POSTROAD_API_KEY, write a profile "
            f"into {config_file()}, or run `postroad up` in this folder."
        )
    found_key = given_key or (kept.get("api_key") if found_url == kept.get("url") else None)
    if not found_key:
        raise click.UsageError(f"No API key for {found_url}. Give --api-key, or set POSTROAD_API_KEY.")
    return _checked(found_url, found_key)


def _checked(url: str, key: str) -> Connection:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"{url!r} is no URL of an API; it begins with https:// or http://.")
    if not (key.isascii() and key.isprintable()):
        raise click.UsageError("The API key holds characters that no key has.")
    return Connection(url=url.rstrip("/"), key=key)


def _profile(named: str | None) -> Mapping[str, Any]:
    """``url`` and ``api_key`` of a profile: a table of config.toml. Only one that was asked for must be there."""
    path = config_file()
    name = named or DEFAULT_PROFILE
    try:
        profiles = tomllib.loads(path.read_text())
    except FileNotFoundError:
        profiles = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}.") from None
    found = profiles.get(name, {})
    if named and not found:
        raise click.UsageError(f"There is no profile {name!r}: {path} has no table [{name}].")
    fields = ("url", "api_key")
    if not isinstance(found, dict) or any(not isinstance(found.get(field, ""), str) for field in fields):
        raise click.UsageError(f"Profile {name!r} in {path} must be a table with url and api_key, both text.")
    return found


def _stack() -> Mapping[str, Any]:
    try:
        content = json.loads(STACK_JSON.read_text())
    except (OSError, ValueError):
        return {}
    return {"url": content.get("api"), "api_key": content.get("api_key")}
