"""The words of a mail: inline, from a template, or both. Inline values win."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.errors import ApiError, Fault
from api_shim.submission import Submission
from models.template import Template, TemplateVersion
from worker.compose import UNSUBSCRIBE_URL, variables_in

LISTED = 100
"""Missing variables named in one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    subject: str
    html: str | None
    text: str | None
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Values for recipients that give none."""


def wording(session: Session, workspace_id: UUID, submission: Submission) -> Wording:
    """Subject and bodies of a submission, with the current version of its template where it names one.

    Raises VALIDATION_ERROR if the template leaves a subject or body open, or a recipient lacks a variable.
    """
    if submission.template_id is None:
        return Wording(subject=submission.subject or "", html=submission.html, text=submission.text)
    version = session.scalars(
        select(TemplateVersion)
        .join(Template, (Template.id == TemplateVersion.template_id) & (Template.version == TemplateVersion.version))
        .where(Template.workspace_id == workspace_id, Template.id == submission.template_id)
    ).one()
    inline = submission.html is not None or submission.text is not None
    words = Wording(
        subject=submission.subject if submission.subject is not None else version.subject or "",
        html=submission.html if inline else version.html,
        text=submission.text if inline else version.text,
        defaults={name: str(value) for name, value in version.defaults.items()},
    )
    if faults := [*_open(words, submission), *_missing_variables(words, submission)]:
        raise ApiError("VALIDATION_ERROR", faults=faults)
    return words


def _open(words: Wording, submission: Submission) -> list[Fault]:
    faults = []
    if not words.subject:
        faults.append(Fault("subject", f"template {submission.template_id} has no subject; give one", "subject_needed"))
    if words.html is None and words.text is None:
        faults.append(
            Fault("content", f"template {submission.template_id} has no content; give some", "content_needed")
        )
    return faults


def _missing_variables(words: Wording, submission: Submission) -> list[Fault]:
    if submission.substitutions is None or not submission.individual:
        return []
    given = words.defaults.keys() | ({UNSUBSCRIBE_URL} if submission.settings.unsubscribe else set())
    needed = variables_in(words.subject, words.html, words.text) - given
    missing = [
        (address.email, name)
        for address in submission.to
        for name in sorted(needed - submission.substitutions.get(address.email.lower(), {}).keys())
    ]
    faults = [
        Fault(
            f"substitutions[{email}].{name}",
            f"{email} has no value for {{{{{name}}}}}; add it to substitutions",
            "variable_missing",
        )
        for email, name in missing[:LISTED]
    ]
    if len(missing) > LISTED:
        faults.append(Fault("substitutions", f"{len(missing) - LISTED} more variables are missing", "variable_missing"))
    return faults
