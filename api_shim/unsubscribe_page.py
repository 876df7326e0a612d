"""What a recipient sees behind an unsubscribe link: one small page without any outside asset."""

import base64
import enum
import hashlib
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.responses import Response


class Page(enum.Enum):
    ASK = "ask"
    DONE = "done"
    BACK = "back"
    LATER = "later"
    """The database is away."""
    INVALID = "invalid"
    """The link is not ours."""
    EXPIRED = "expired"
    """The link is older than links may be."""
    DONE_ALL = "done_all"
    UNTRACKED = "untracked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One language. ``{address}`` stands for the recipient."""

    title: str
    ask: str
    ask_address: str
    """Where the link does not say whose it is."""
    label: str
    button: str
    done: str
    done_if: str
    """After an address was typed in: says nothing about who else got the mail."""
    again: str
    resubscribe: str
    back: str
    later: str
    invalid: str
    everything: str
    """The button that leaves more than one list."""
    done_all: str
    untrack: str
    """The button that ends the measuring of opens and clicks."""
    untracked: str
    expired: str


WORDS: dict[str, Words] = {
    "en": Words(
        title="Unsubscribe",
        ask="Do you want no more of these mails sent to {address}?",
        ask_address="This mail went to several people. Which address should get no more of them?",
        label="Your email address",
        button="Unsubscribe",
        done="Done. {address} will get no more of these mails.",
        done_if="Done. If this mail went to {address}, no more of them will.",
        again="That was a mistake?",
        resubscribe="Subscribe again",
        back="Welcome back. {address} will get these mails again.",
        later="This did not work just now, and nothing was changed. Please try again in a few minutes.",
        invalid="This link is not valid. Perhaps it was copied incompletely: open it from the mail once more.",
        everything="Unsubscribe from all mails of this sender",
        done_all="Done. {address} will get no more mails of this sender.",
        untrack="Measure nothing",
        untracked="Done. What {address} opens and clicks in mails of this sender is no longer measured.",
        expired="This link has expired. Newer mails have one that works.",
    ),
    "de": Words(
        title="Abmelden",
        ask="Sollen keine weiteren dieser E-Mails an {address} gehen?",
        ask_address="Diese E-Mail ging an mehrere Personen. Welche Adresse soll keine weiteren bekommen?",
        label="Ihre E-Mail-Adresse",
        button="Abmelden",
        done="Erledigt. An {address} gehen keine weiteren dieser E-Mails.",
        done_if="Erledigt. Falls diese E-Mail an {address} ging, folgen keine weiteren.",
        again="Das war ein Versehen?",
        resubscribe="Wieder anmelden",
        back="Willkommen zurück. {address} bekommt diese E-Mails wieder.",
        later="Das hat gerade nicht geklappt, geändert wurde nichts. Bitte versuchen Sie es in einigen Minuten erneut.",
        invalid="Dieser Link ist ungültig. Vielleicht wurde er unvollständig kopiert: Öffnen Sie ihn noch einmal aus "
        "der E-Mail.",
        everything="Von allen E-Mails dieses Absenders abmelden",
        done_all="Erledigt. An {address} gehen keine E-Mails dieses Absenders mehr.",
        untrack="Nichts messen",
        untracked="Erledigt. Was {address} in E-Mails dieses Absenders öffnet und anklickt, wird nicht mehr gemessen.",
        expired="Dieser Link ist abgelaufen. In neueren E-Mails steht einer, der funktioniert.",
    ),
    "fr": Words(
        title="Se désabonner",
        ask="Voulez-vous que ces e-mails ne soient plus envoyés à {address} ?",
        ask_address="Cet e-mail a été envoyé à plusieurs personnes. Quelle adresse ne doit plus en recevoir ?",
        label="Votre adresse e-mail",
        button="Se désabonner",
        done="C'est fait. {address} ne recevra plus ces e-mails.",
        done_if="C'est fait. Si cet e-mail a été envoyé à {address}, il n'y en aura plus d'autres.",
        again="C'était une erreur ?",
        resubscribe="Se réabonner",
        back="Heureux de vous revoir. {address} recevra de nouveau ces e-mails.",
        later="Cela n'a pas fonctionné et rien n'a été modifié. Veuillez réessayer dans quelques minutes.",
        invalid="Ce lien n'est pas valide. Il a peut-être été copié incomplètement : ouvrez-le à nouveau depuis "
        "l'e-mail.",
        everything="Se désabonner de tous les e-mails de cet expéditeur",
        done_all="C'est fait. {address} ne recevra plus d'e-mails de cet expéditeur.",
        untrack="Ne rien mesurer",
        untracked="C'est fait. Ce que {address} ouvre et clique dans les e-mails de cet expéditeur n'est plus mesuré.",
        expired="Ce lien a expiré. Les e-mails plus récents en contiennent un qui fonctionne.",
    ),
    "es": Words(
        title="Darse de baja",
        ask="¿Quiere que no se envíen más correos de este tipo a {address}?",
        ask_address="Este correo se envió a varias personas. ¿Qué dirección no debe recibir más?",
        label="Su dirección de correo",
        button="Darse de baja",
        done="Hecho. {address} no recibirá más correos de este tipo.",
        done_if="Hecho. Si este correo se envió a {address}, no recibirá más.",
        again="¿Ha sido un error?",
        resubscribe="Volver a suscribirse",
        back="Nos alegra su regreso. {address} volverá a recibir estos correos.",
        later="Ahora mismo no ha funcionado y no se ha cambiado nada. Inténtelo de nuevo en unos minutos.",
        invalid="Este enlace no es válido. Quizá se copió incompleto: ábralo otra vez desde el correo.",
        everything="Darse de baja de todos los correos de este remitente",
        done_all="Hecho. {address} no recibirá más correos de este remitente.",
        untrack="No medir nada",
        untracked="Hecho. Ya no se mide lo que {address} abre y pulsa en los correos de este remitente.",
        expired="Este enlace ha caducado. Los correos más recientes contienen uno que funciona.",
    ),
    "it": Words(
        title="Annulla l'iscrizione",
        ask="Vuole che queste e-mail non siano più inviate a {address}?",
        ask_address="Questa e-mail è stata inviata a più persone. Quale indirizzo non deve più riceverne?",
        label="Il suo indirizzo e-mail",
        button="Annulla l'iscrizione",
        done="Fatto. {address} non riceverà più queste e-mail.",
        done_if="Fatto. Se questa e-mail è stata inviata a {address}, non ne riceverà altre.",
        again="È stato un errore?",
        resubscribe="Iscriviti di nuovo",
        back="Bentornato. {address} riceverà di nuovo queste e-mail.",
        later="In questo momento non ha funzionato e nulla è cambiato. Riprovi tra qualche minuto.",
        invalid="Questo link non è valido. Forse è stato copiato in modo incompleto: lo apra di nuovo dall'e-mail.",
        everything="Annulla l'iscrizione a tutte le e-mail di questo mittente",
        done_all="Fatto. {address} non riceverà più e-mail da questo mittente.",
        untrack="Non misurare nulla",
        untracked="Fatto. Le aperture e i clic di {address} nelle e-mail di questo mittente non vengono più misurati.",
        expired="Questo link è scaduto. Le e-mail più recenti ne contengono uno che funziona.",
    ),
    "pt": Words(
        title="Cancelar a subscrição",
        ask="Pretende que estes e-mails deixem de ser enviados para {address}?",
        ask_address="Este e-mail foi enviado a várias pessoas. Que endereço não deve receber mais?",
        label="O seu endereço de e-mail",
        button="Cancelar a subscrição",
        done="Feito. {address} não receberá mais estes e-mails.",
        done_if="Feito. Se este e-mail foi enviado para {address}, não serão enviados outros.",
        again="Foi um engano?",
        resubscribe="Subscrever de novo",
        back="É bom tê-lo de volta. {address} voltará a receber estes e-mails.",
        later="Não funcionou neste momento e nada foi alterado. Tente de novo dentro de alguns minutos.",
        invalid="Esta ligação não é válida. Talvez tenha sido copiada de forma incompleta: abra-a de novo a partir do "
        "e-mail.",
        everything="Cancelar a subscrição de todos os e-mails deste remetente",
        done_all="Feito. {address} não receberá mais e-mails deste remetente.",
        untrack="Não medir nada",
        untracked="Feito. O que {address} abre e clica nos e-mails deste remetente já não é medido.",
        expired="Esta ligação expirou. Os e-mails mais recentes contêm uma que funciona.",
    ),
    "nl": Words(
        title="Afmelden",
        ask="Wilt u dat er geen e-mails van dit soort meer naar {address} gaan?",
        ask_address="Deze e-mail ging naar meerdere mensen. Welk adres moet er geen meer krijgen?",
        label="Uw e-mailadres",
        button="Afmelden",
        done="Gedaan. {address} krijgt geen e-mails van dit soort meer.",
        done_if="Gedaan. Als deze e-mail naar {address} ging, volgen er geen meer.",
        again="Was dat een vergissing?",
        resubscribe="Opnieuw aanmelden",
        back="Welkom terug. {address} krijgt deze e-mails weer.",
        later="Het lukte nu niet en er is niets veranderd. Probeer het over een paar minuten opnieuw.",
        invalid="Deze link is niet geldig. Misschien is hij onvolledig gekopieerd: open hem nog eens vanuit de e-mail.",
        everything="Afmelden voor alle e-mails van deze afzender",
        done_all="Gedaan. {address} krijgt geen e-mails van deze afzender meer.",
        untrack="Niets meten",
        untracked="Gedaan. Wat {address} opent en aanklikt in e-mails van deze afzender wordt niet meer gemeten.",
        expired="Deze link is verlopen. In nieuwere e-mails staat er een die werkt.",
    ),
}
"""Language -> its words. The first is spoken to everybody else."""

STYLE = """
:root{color-scheme:light dark}
body{font:1.05rem/1.55 system-ui,sans-serif;margin:0;display:grid;min-height:100vh;place-items:center;
background:#f6f6f4;color:#1b1b1b}
main{max-width:30rem;padding:2rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0 0 .75rem}
label{display:block;margin:1rem 0 .25rem}
input,button{font:inherit;padding:.6rem 1rem;border-radius:.4rem;border:1px solid #767676}
input{width:100%;box-sizing:border-box;margin-bottom:1rem}
button{background:#1f4e8c;color:#fff;border-color:#1f4e8c;cursor:pointer}
button.quiet{background:transparent;color:inherit;border-color:#767676}
:focus-visible{outline:3px solid #f2a900;outline-offset:2px}
@media(prefers-color-scheme:dark){body{background:#16181b;color:#ececec}
button{background:#7fb2f0;border-color:#7fb2f0;color:#10151b}}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Language",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


def page(
    headers: Mapping[str, str],
    kind: Page,
    *,
    address: str = "",
    asked: bool = False,
    listed: bool = False,
    status: int = 200,
) -> Response:
    """The answer in the reader's language.

    headers: of the request. address: the recipient, where it is known. asked: it was typed in, not signed. listed: the
    mail is of a list, and more can be left than that.
    """
    language = language_of(headers.get("accept-language", ""))
    words = WORDS[language]
    body = _BODIES[kind](words, _Reader(address, asked, listed))
    document = (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(words.title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{html.escape(words.title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    more = {"Content-Language": language} | ({"Retry-After": "60"} if status == 503 else {})
    return Response(document, status, HEADERS | more, "text/html")


def language_of(accepted: str) -> str:
    """The language of `WORDS` that an Accept-Language header (RFC 9110 section 12.5.4) likes best."""
    wishes = []
    for position, wish in enumerate(accepted[:1000].split(",")):
        tag, _, weight = wish.partition(";")
        wishes.append((-_weight(weight), position, tag.strip().lower().partition("-")[0]))
    return next((tag for weight, _, tag in sorted(wishes) if tag in WORDS and weight < 0), "en")


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name == "q" else 1.0
    except ValueError:
        return 0.0


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who reads the page. See `page`."""

    address: str
    asked: bool
    listed: bool


def _ask(words: Words, reader: _Reader) -> str:
    choices = [_button(words.button, "unsubscribe")]
    if reader.listed:
        choices.append(_button(words.everything, "unsubscribe_all", quiet=True))
    choices.append(_button(words.untrack, "untrack", quiet=True))
    if reader.address:
        return _text(words.ask, reader.address) + _form(*choices)
    field = (
        f'<label for="address">{html.escape(words.label)}</label>\n'
        '<input id="address" name="address" type="email" autocomplete="email" required>\n'
    )
    return _text(words.ask_address) + _form(field, *choices)


def _done(words: Words, reader: _Reader) -> str:
    return _undoable(words, reader, words.done_if if reader.asked else words.done)


def _done_all(words: Words, reader: _Reader) -> str:
    return _undoable(words, reader, words.done_if if reader.asked else words.done_all)


def _undoable(words: Words, reader: _Reader, said: str) -> str:
    kept = f'<input type="hidden" name="address" value="{html.escape(reader.address)}">' if reader.asked else ""
    button = _form(kept, _button(words.resubscribe, "resubscribe", quiet=True))
    return _said(said, reader) + f"\n{_text(words.again)}{button}"


def _said(sentence: str, reader: _Reader) -> str:
    return f'<div role="status">{_text(sentence, reader.address)}</div>'


_BODIES: dict[Page, Callable[[Words, _Reader], str]] = {
    Page.ASK: _ask,
    Page.DONE: _done,
    Page.DONE_ALL: _done_all,
    Page.BACK: lambda words, reader: _said(words.back, reader),
    Page.UNTRACKED: lambda words, reader: _said(words.untracked, reader),
    Page.LATER: lambda words, _: _text(words.later),
    Page.INVALID: lambda words, _: _text(words.invalid),
    Page.EXPIRED: lambda words, _: _text(words.expired),
}


def _text(sentence: str, address: str = "") -> str:
    shown = html.escape(sentence).replace("{address}", f"<strong>{html.escape(address)}</strong>")
    return f"<p>{shown}</p>\n"


def _button(label: str, action: str, *, quiet: bool = False) -> str:
    looks = ' class="quiet"' if quiet else ""
    return f'<button name="action" value="{action}"{looks}>{html.escape(label)}</button>'


def _form(*parts: str) -> str:
    return '<form method="post">\n' + "\n".join(part for part in parts if part) + "\n</form>"
