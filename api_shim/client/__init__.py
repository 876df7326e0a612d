"""Calls the API from Python, waiting or awaiting. It needs httpx2 alone and imports nothing of the server.

    with Client("https://mail.example.com", key) as client:
        sent = client.send(to_email="grace@example.com", subject="Offer", html_body="<p>Here it is.</p>")

A send carries an Idempotency-Key of its own, so that repeating it after a lost answer never sends twice.
"""

from api_shim.client.calls import Call, Json, Mail, Sent
from api_shim.client.clients import AsyncClient, Client
from api_shim.client.errors import (
    Conflict,
    ConnectionLost,
    IdempotencyConflict,
    InvalidKey,
    NotDelivered,
    NotFound,
    NotLogged,
    NotPermitted,
    PostroadError,
    RateLimited,
    ServerFailed,
    Unavailable,
    ValidationFailed,
)
from api_shim.client.exchange import Retries

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "Conflict",
    "ConnectionLost",
    "IdempotencyConflict",
    "InvalidKey",
    "Json",
    "Mail",
    "NotDelivered",
    "NotFound",
    "NotLogged",
    "NotPermitted",
    "PostroadError",
    "RateLimited",
    "Retries",
    "Sent",
    "ServerFailed",
    "Unavailable",
    "ValidationFailed",
]
