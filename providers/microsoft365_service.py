"""Microsoft Graph for one mailbox: requests with its access token, and what they bring."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from providers.base import Account, Failed, harmless
from providers.http import Answer, Api
from providers.microsoft365_errors import refused
from providers.microsoft365_token import Tokens

ROOT = "https://graph.microsoft.com"


class Graph:
    """Graph's methods for one account (``me``). Ids are immutable: a draft keeps its own when it is sent."""

    def __init__(self, account: Account) -> None:
        root = (account.base_url or ROOT).rstrip("/")
        self.api = Api(account, root if root.endswith(("/v1.0", "/beta")) else f"{root}/v1.0")
        self.tokens = Tokens(account)

    def call(self, method: str, path: str, **arguments: Any) -> Answer:
        """One request; a second one only where Graph refused the first for an access token that had aged.

        arguments: those of `Api.call`. Raises Failed.
        """
        token = self.tokens.get()
        answer = self.api.call(method, path, headers=_headers(token), **arguments)
        if answer.status != 401:
            return answer
        token = self.tokens.get(instead_of=token)
        return self.api.call(method, path, headers=_headers(token), **arguments)

    def step(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The object that a call brings which sends no mail. Raises Failed, never uncertain."""
        with sends_nothing():
            return object_of(self.call(method, path, **arguments))

    def close(self) -> None:
        self.api.close()
        self.tokens.close()


@contextmanager
def sends_nothing() -> Iterator[None]:
    """Around a step that sends no mail: Failed is never uncertain."""
    try:
        yield
    except Failed as failure:
        raise Failed(harmless(failure.outcome)) from failure


def object_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of a success. Raises Failed for anything else."""
    value = answer.json()
    if answer.status in (200, 201) and isinstance(value, dict):
        return value
    raise Failed(refused(answer))


def message_path(message: str) -> str:
    return f"me/messages/{quote(message, safe='')}"


def _headers(token: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Prefer": 'IdType="ImmutableId"',
        "client-request-id": str(uuid.uuid4()),
    }
