"""The resources, a file each.

All answer in source A's envelope, in lists of ``{"data": [...], "next_cursor": null}``."""

from api_shim.resources import crm, ops, submissions, webhook_endpoints

ROUTERS = (submissions.router, ops.router, crm.router, webhook_endpoints.router)
