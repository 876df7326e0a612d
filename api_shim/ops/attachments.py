"""Files of mails, sent and received, to be saved from the dashboard."""

from starlette.responses import Response

from api_shim.downloads import download
from api_shim.errors import ApiError
from api_shim.ops.pages import Visit
from api_shim.resources.inbound_attachments import inbound_attachment
from api_shim.resources.submissions import find_message
from models.content import Content
from models.message import Submission


def sent(visit: Visit) -> Response:
    """``GET /ops/messages/{id}/file?number=N``: an attachment of a mail of ours, counted from 0."""
    row = find_message(visit.session, visit.operator.caller, visit.path_id)
    files = Content.from_json(visit.session.get_one(Submission, row.submission_id).content).attachments
    number = _number(visit)
    file = files[number] if number < len(files) else None
    answer = file and download(
        visit.session, row.workspace_id, file.sha256, name=file.filename, content_type=file.content_type
    )
    if not answer:
        raise ApiError("NOT_FOUND", details={"id": str(row.id), "attachment": number})
    return answer


def received(visit: Visit) -> Response:
    """``GET /ops/inbound/{id}/file?number=N``: an attachment of a mail that came in, counted from 0."""
    return inbound_attachment(visit.path_id, _number(visit), visit.session, visit.operator.caller)


def _number(visit: Visit) -> int:
    """The file asked for; a number that no mail has where what was asked for is none."""
    asked = visit.asked("number")
    return int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 4 else 1000
