"""Conversations: what was written to whom and answered, with the log of each mail that was sent."""

from starlette.responses import Response

from api_shim.ops.pages import Form, Visit, render
from api_shim.ops.words import number_of
from api_shim.resources.linked import Linked
from api_shim.resources.thread_messages import list_thread_messages
from api_shim.resources.threads import ThreadChange, change_thread, get_thread, list_threads

PAGE = 50
STATUSES = ("active", "archived", "spam")


def threads(visit: Visit) -> Response:
    """``GET /ops/threads``."""
    asked = {name: visit.asked(name) for name in ("search", "participant", "status")}
    found = list_threads(
        session=visit.session,
        caller=visit.operator.caller,
        linked=Linked(None, None, None),
        search=asked["search"][:255] or None,
        participant=asked["participant"][:255] or None,
        status=asked["status"] if asked["status"] in STATUSES else None,  # type: ignore[arg-type]  # one of the three
        limit=PAGE,
        cursor=visit.asked("cursor") or None,
    )
    given = {name: value for name, value in asked.items() if value}
    return render(
        visit,
        "threads.html",
        rows=found["data"],
        cursor=found["next_cursor"],
        asked=asked,
        given=given,
        statuses=STATUSES,
    )


def thread(visit: Visit) -> Response:
    """``GET /ops/threads/{id}``."""
    caller = visit.operator.caller
    found = get_thread(visit.path_id, visit.session, caller)
    mails = list_thread_messages(visit.path_id, visit.session, caller, PAGE, visit.asked("cursor") or None)
    return render(
        visit, "thread.html", thread=found, mails=mails["data"], cursor=mails["next_cursor"], statuses=STATUSES
    )


def change(visit: Visit, form: Form) -> str:
    """``status``: archives a conversation, marks it as spam, or brings it back."""
    body = ThreadChange.model_validate({"status": form.get("status", "")})
    answer = change_thread(visit.path_id, body, visit.session, visit.operator.caller)
    return f"{number_of(answer['message_count'], 'mail')}: the conversation is {answer['status']}."
