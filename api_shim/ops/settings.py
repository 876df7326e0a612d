"""How the system is set up, as far as any workspace may know it."""

from starlette.responses import Response

from api_shim.ops.pages import Visit, render

SHOWN = {
    "Retries": (
        "retry_seconds", "retry_days", "webhook_retry_seconds", "webhook_timeout_seconds", "webhook_disable_days",
    ),
    "Limits": ("key_per_second", "key_per_day", "limits_when_redis_is_down", "max_body_bytes", "idempotency_hours"),
    "Kept for": (
        "retention_message_days", "retention_log_days", "retention_event_days", "retention_audit_days", "link_days",
    ),
    "Mail": ("public_url", "mail_domain", "mail_host_name", "spf_mechanisms", "phishing_threshold", "lease_seconds"),
}  # fmt: skip
"""Named one by one: a new setting is not shown before somebody has decided that it may be. Neither secrets nor hosts,
networks and paths inside are among them."""


def settings(visit: Visit) -> Response:
    """``GET /ops/settings``: the values that this process was started with."""
    held = visit.services.settings
    groups = {name: {field: getattr(held, field) for field in fields} for name, fields in SHOWN.items()}
    return render(visit, "settings.html", groups=groups)
