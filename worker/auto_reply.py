"""Mail that a machine wrote in answer to ours: vacation notes, lists, reports (RFC 3834). Nobody answered.

One strong sign is enough; of the weak ones, which people and their programs give too, it takes two.
"""

import re
from collections.abc import Callable, Mapping

Test = Callable[[str], bool]

_STRONG: Mapping[str, Test] = {
    "auto-submitted": lambda value: value.partition(";")[0].strip() not in ("no", ""),
    "precedence": lambda value: value in ("bulk", "list", "junk", "auto_reply"),
    "x-autoreply": lambda value: value not in ("no", ""),
    "x-autorespond": bool,
    "x-autoresponder": bool,
    "x-autoreply-from": bool,
    "x-auto-reply-from": bool,
    "x-mail-autoreply": bool,
    "x-vacation": bool,
    "list-id": bool,
    "x-fc-machinegenerated": bool,
    "content-type": lambda value: value.startswith("multipart/report"),
    "x-ms-exchange-generated-message-source": lambda value: "oof" in value or "autoreply" in value,
    "x-failed-recipients": bool,
}
_WEAK: Mapping[str, Test] = {
    "x-auto-response-suppress": lambda value: bool({"all", "oof", "autoreply"} & set(re.findall(r"\w+", value))),
    "return-path": lambda value: value == "<>",
    "x-mailer": lambda value: "vacation" in value or "autorespond" in value,
}

_PREFIX = re.compile(
    r"(?:automatic reply|auto(?:matic)?[- ]?(?:response|reply)|automatische antwort|automatisch antwoord|autoreply"
    r"|automatisch[e]? afwezigheidsbericht|réponse automatique|respuesta automática|risposta automatica|autosvar"
    r"|resposta automática|automatyczna odpowiedź|automatické odpovědi|automaattinen vastaus|otomatik yanıt"
    r"|автоматический ответ|автоответ|自動応答|自动答复|自動回覆|자동 회신|abwesenheitsnotiz)\s*[::-]",
    re.IGNORECASE,
)
"""What programs set before the subject that they answer to."""
_ABSENT = re.compile(
    r"out of (?:the )?office|\booo\b|on (?:vacation|holiday|leave)|away from (?:my|the) (?:office|desk)"
    r"|abwesen(?:d|heit)|im urlaub|nicht im (?:büro|haus)|absen(?:t|ce) du bureau|en (?:congés?|vacances)"
    r"|fuera de (?:la )?oficina|de vacaciones|fuori (?:sede|ufficio)|in ferie|fora do escritório|de férias"
    r"|afwezig|niet op kantoor|ikke på kontoret|inte på kontoret|frånvaro|poza biurem|nieobecno|mimo kancelář"
    r"|вне офиса|в отпуске|不在|休暇|외출|휴가",
    re.IGNORECASE,
)


def why_automatic(headers: Mapping[str, str], subject: str, envelope_from: str | None = None) -> str | None:
    """The sign by which it is known, or None where a person seems to have written.

    headers: names in lower case. envelope_from: the return path, empty for ``<>``, None where it is not known.
    """
    given = {name: value.strip().lower() for name, value in headers.items()}
    for name, test in _STRONG.items():
        if name in given and test(given[name]):
            return name
    if _PREFIX.match(subject.strip()):
        return "subject"
    weak = [name for name, test in _WEAK.items() if name in given and test(given[name])]
    weak += ["envelope"] if envelope_from == "" and "return-path" not in weak else []
    weak += ["subject"] if _ABSENT.search(subject[:500]) else []
    return "+".join(weak) if len(weak) > 1 else None


HEADERS = (*_STRONG, *_WEAK)
"""Those that are looked at."""
