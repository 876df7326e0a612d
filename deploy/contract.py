"""What postroad promises, feature by feature, and the tests that prove it.

A test proves the features whose numbers begin its name: ``test_a16_a17_a_linked_mail_...`` proves A16 and A17.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

FEATURES: Mapping[str, str] = {
    "A1": "Every endpoint answers under both base paths",
    "A2": "Bearer keys, JSON bodies",
    "A3": "`email:read` reads threads, capabilities, logs, sender configs",
    "A4": "`email:send` sends and replies",
    "A5": "`email:write` changes threads",
    "A6": "`email-config:write` changes sender configs",
    "A7": "Another workspace's ids do not exist",
    "A8": "The MCP tool `send_email`",
    "A9": "`to_email`: one recipient",
    "A10": "`to_name`",
    "A11": "`subject`, required",
    "A12": "`html_body`, required; no text",
    "A13": "`mode`: the company, or one user's mailbox",
    "A14": "`sender_user_id`, required in personal mode",
    "A15": "`from_email`: an alias of the user's mailbox, found by itself where it is left out",
    "A16": "`contact_id`: a line on the contact's timeline",
    "A17": "`deal_id` or `opportunity_id`: a line on the deal's timeline",
    "A18": "`customer_id` or `company_id`: linked to the customer",
    "A19": "null is as good as absent: an unlinked send",
    "A20": "A linked send: log, thread and timelines name the entity",
    "A21": "A stale id: 400, nothing is sent, no ghost thread",
    "A22": "All bad fields in one answer, spelled as the caller spelled them",
    "A23": "`cc`: one text with commas; its people take part in the thread",
    "A24": "`email_config_id`: which sender; the default otherwise",
    "A25": "`attachments`, up to 25 MB",
    "A26": "The body of a success, with its ids",
    "A27": "The answer comes after the provider's",
    "A28": "The envelope of errors",
    "A29": "`VALIDATION_ERROR` with `missing_entities`",
    "A30": "`EMAIL_LOG_FAILED`: sent, not logged",
    "A31": "`EMAIL_DELIVERY_FAILED`: not sent",
    "A32": "`FROM_EMAIL_NOT_WRITABLE`",
    "A33": "`INVALID_FROM_EMAIL_HANDLE`",
    "A34": "`ALIAS_NOT_CONNECTED`",
    "A35": "`GMAIL_NOT_CONNECTED`",
    "A36": "`GMAIL_USER_REQUIRED`",
    "A37": "List of threads: search, filters, linked entities",
    "A38": "One thread",
    "A39": "The mails of a thread, both ways, in order",
    "A40": "Changing a thread: read or unread, its status",
    "A41": "Marking threads read, some or all",
    "A42": "Replying into a thread",
    "A43": "Capabilities: who I am, what can be sent as whom",
    "A44": "The log and its filters",
    "A45": "What was sent can be seen in log and threads, unless the log failed",
    "A46": "Reading sender configs",
    "A47": "Making one: the server composes its address",
    "A48": "Changing one: mail leaves from the new address",
    "A49": "Deleting one",
    "A50": "Contacts, deals and customers by id, under both names",
    "A51": "Received mail stands in its thread",
    "A52": "An entity that vanishes after the request: sent, logged, unlinked",
    "B1": "Through the connected Gmail or Microsoft 365 account",
    "B2": "`Idempotency-Key`: a repeat within 24 h gets the original answer",
    "B3": "The same key with another payload: 409",
    "B4": "`to`: text or list, with names",
    "B5": "`subject`: required, up to 998 characters",
    "B6": "`body_html` or `body_text`; both become alternatives",
    "B7": "`cc` and `bcc` as lists",
    "B8": "`reply_to`; the sending mailbox otherwise",
    "B9": "`contact_id`: on the contact's timeline",
    "B10": "`deal_id`: on the deal's timeline",
    "B11": "`thread_id`: continues a conversation; a new one otherwise",
    "B12": "`attachments` by content or storage path",
    "B13": "Rate limit and request id in the headers of every answer",
    "B14": "`validation_error`: no recipient, subject or body",
    "B15": "`invalid_key`: unknown, revoked or expired",
    "B16": "`insufficient_permissions`: no scope, or nothing connected",
    "B17": "`rate_limited`: per second or per day",
    "B18": "`provider_error`: what the provider refused",
    "C1": "The same endpoint, answered at once",
    "C2": "`from`: an address that the mailer may use",
    "C3": "`to`: any number, each a mail of its own",
    "C4": "`cc` and `bcc` in shared mail only",
    "C5": "`process_email_inbulk`: one shared mail, its limits",
    "C6": "`replyTo`: one address or several, with names",
    "C7": "`subject`, required without a template",
    "C8": "`content`: html and text, required without a template",
    "C9": "`template_id`; inline words win",
    "C10": "`attachments`, inline by content id too",
    "C11": "The list of allowed types",
    "C12": "`headers` of the caller",
    "C13": "`substitutions` for each recipient",
    "C14": "`mailer_id`",
    "C15": "`settings`, required",
    "C16": "Open tracking",
    "C17": "Click tracking",
    "C18": "`validate`: bad recipients are refused beforehand",
    "C19": "`phishing_protection`: content is looked at beforehand",
    "C20": "The unsubscribe link",
    "C21": "`ip_pool`",
    "C22": "`priority`: urgent mail goes first",
    "C23": "`campaign_id`: groups, filters, counts",
    "C24": "`custom_args`, given back in webhooks",
    "C25": "A Message-ID for every mail",
    "C26": "The caller's own Message-ID, wrapped",
    "C27": "Gmail takes none of the caller's",
    "C28": "`In-Reply-To` and `References`",
    "C29": "`Thread-Id` for replies through Gmail",
    "C30": "The set of providers",
    "C31": "`INCOMING_EMAIL`",
    "C32": "Success: two keys, at once",
    "C33": "`ref_id` finds logs and filters webhooks",
    "C34": "The envelope of errors",
    "C35": "The events",
    "C36": "The body of an event",
    "C37": "The exact sentences of errors",
    "C38": "Priorities, personal mail, tracking, queries by `ref_id`, figures by campaign",
    "D1": "Queues of their own for high and normal priority",
    "D2": "Entities and priority are checked at intake",
    "D3": "Log and timelines are written by a follow-up",
    "D4": "Outcomes leave as webhooks",
    "D5": "Bulk and campaign jobs as callers",
    "D6": "The dashboard's figures of the queues",
    "D7": "The named provider packages do the work",
}
"""Number -> what it is. A: the CRM mail API, B: the mailbox gateway, C: the mailer API, D: the whole."""

UNPROVED: Mapping[str, str] = {}
"""Number -> why no test proves it. A test fails when one does, so that nothing stays here for longer than needed."""

_NUMBERED = re.compile(r"test_((?:[abcd]\d+_)+)")


def proofs(tests: Path) -> dict[str, list[tuple[str, Path]]]:
    """Number -> name and file of each test below the directory ``tests`` that proves it, in order of files."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        for name in _functions(path):
            numbered = _NUMBERED.match(name)
            for number in numbered[1].upper().strip("_").split("_") if numbered else ():
                found.setdefault(number, []).append((name, path))
    return found


def _functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
