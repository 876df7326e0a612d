"""The API over HTTP, as the verbs use it: answers as they come, errors as exit codes."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any
from urllib.parse import quote

import click
import requests
import requests.auth

from api_shim.errors import CODES
from deploy.commands.connection import Connection, connect_to
from deploy.commands.output import Output, as_json, shown

FAILED, NOT_FOUND, NOT_ALLOWED, PARTLY, LATER = 1, 3, 4, 5, 75
EXIT_CODES = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND, 429: LATER, 502: FAILED, 503: LATER, 504: LATER}
"""By HTTP status; any other error is `FAILED`. `LATER` is EX_TEMPFAIL of sysexits.h."""

PAGE = 500
PATIENT_STATUSES = (429, 503)
PATIENCE_SECONDS = 60.0
TIMEOUT_SECONDS = (5, 60)


class Failure(click.ClickException):
    """Ends the verb with a message on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance


class Refused(Failure):
    """The API answered with an error. ``str`` is for people: what happened, each field, what to do, the request id."""

    def __init__(self, status: int, body: Any, request_id: str | None) -> None:
        super().__init__(_told(status, body, request_id), EXIT_CODES.get(status, FAILED))
        self.status = status
        self.body = body


class Unreachable(Failure):
    """No answer. Whether the request was carried out is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, LATER)


class _Bearer(requests.auth.AuthBase):
    """As a header alone it would give way to a .netrc."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Remote:
    """One server with one key."""

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        self._session = requests.Session()
        self._session.auth = _Bearer(connection.key)
        self._session.headers["User-Agent"] = "postroad-cli"

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, params=query)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """Header names are given with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, json=body, headers=named)

    def content(self, path: str) -> bytes:
        """A body that is no JSON. Raises Refused and Unreachable."""
        answer = self._exchange("GET", path, {})
        return answer.content if answer.status_code == 200 else bytes(_body_of(answer))

    def delete(self, path: str, **query: Any) -> None:
        self.ask("DELETE", path, params=query)

    def rows(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every row of a list."""
        cursor = None
        while True:
            page = self.get(path, **{"limit": PAGE, **query, "cursor": cursor})
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The body of the answer; None where there is none. Raises Refused and Unreachable.

        Where the server says when to come back, it comes back, for up to a minute.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._exchange(method, path, request)
            wait = _wait_asked_for(answer)
            if wait is None or time.monotonic() + wait > deadline:
                return _body_of(answer)
            time.sleep(wait)

    def _exchange(self, method: str, path: str, request: dict[str, Any]) -> requests.Response:
        url = f"{self.url}{path}"
        try:
            return self._session.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **request)
        except requests.RequestException as error:
            raise Unreachable(
                f"{self.url} does not answer ({type(error).__name__}). Check the URL, and that the API runs there."
            ) from None


def _wait_asked_for(answer: requests.Response) -> float | None:
    if answer.status_code not in PATIENT_STATUSES:
        return None
    try:
        return max(0.1, float(answer.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _body_of(answer: requests.Response) -> Any:
    request_id = answer.headers.get("X-Request-ID")
    if not 200 <= answer.status_code < 300:
        raise Refused(answer.status_code, _json(answer), request_id)
    if answer.status_code == 204:
        return None
    body = _json(answer)
    if body is None:
        raise Unreachable(f"{answer.url} did not answer as the API does. Check the URL.")
    return body


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _told(status: int, body: Any, request_id: str | None) -> str:
    """What an error says. Knows the envelope of the resources and that of the mailer shape."""
    body = body if isinstance(body, dict) else {}
    details = body.get("details") if isinstance(body.get("details"), dict) else {}
    code = body.get("error", "") if "success" not in body else ""
    lines = [_headline(status, body, code)]
    lines += [f"  {fault['field']}: {fault['message']}" for fault in details.get("fields", ())]
    lines += [f"  {entry['field']}: {entry['id']} does not exist" for entry in details.get("missing_entities", ())]
    plain = {name: value for name, value in details.items() if name not in ("fields", "missing_entities")}
    lines += [f"  {name}: {shown(value)}" for name, value in plain.items()]
    known = CODES.get(code)
    if known is not None and known.fix not in lines[0]:
        lines.append(known.fix)
    if request_id:
        lines.append(f"Request {request_id}")
    return "\n".join(shown(line) for line in lines)


def _headline(status: int, body: Mapping[str, Any], code: str) -> str:
    if code:
        known = CODES.get(code)
        return f"{status} {code}: {body.get('message') or (known.sentence if known else '')}"
    return f"{status}: {body.get('error') or 'the server gave no reason'}"


def path_of(*parts: str) -> str:
    """A path under /v1 with each part quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which server to talk to; the function gets a `Connection` in their place."""

    @wraps(function)
    def run(url: str | None, api_key: str | None, profile: str | None, *arguments: Any, **options: Any) -> None:
        function(connect_to(url, api_key, profile), *arguments, **options)

    for option in (
        click.option("--profile", help="Table of the configuration file to take URL and key from."),
        click.option("--api-key", help="Instead of POSTROAD_API_KEY."),
        click.option("--url", help="Root of the API, instead of POSTROAD_URL."),
    ):
        run = option(run)
    return run


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every verb that talks to a server; it gets a `Remote` and an `Output` in their place."""

    @wraps(function)
    def run(connection: Connection, as_json: bool, *arguments: Any, **options: Any) -> None:
        function(Remote(connection), Output(as_json=as_json), *arguments, **options)

    return connected(as_json(run))


def paged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every list."""
    limit = click.option("--limit", type=click.IntRange(1, PAGE), default=50, show_default=True)
    return limit(click.option("--cursor", help="next_cursor of the page before.")(function))
