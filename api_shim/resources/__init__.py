"""The resources, a file each.

All answer in source A's envelope, in lists of ``{"data": [...], "next_cursor": null}``."""

from api_shim import hooks
from api_shim.resources import (
    actions,
    audit,
    campaigns,
    capabilities,
    configs,
    crm,
    events,
    keys,
    logs,
    mailers,
    ops,
    reply,
    submissions,
    suppressions,
    templates,
    thread_messages,
    threads,
    users,
    webhook_deliveries,
    webhook_endpoints,
)

ROUTERS = (
    submissions.router,
    ops.router,
    crm.router,
    webhook_endpoints.router,
    webhook_deliveries.router,
    campaigns.router,
    actions.router,
    events.router,
    templates.router,
    mailers.router,
    audit.router,
    reply.router,
    threads.router,
    thread_messages.router,
    logs.router,
    configs.router,
    capabilities.router,
    keys.router,
    users.router,
    suppressions.router,
    hooks.router,
)
