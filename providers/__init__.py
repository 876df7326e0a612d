"""Adapters, one file per provider. To add one: its file, its line here, its emulator, its bench in the tests."""

from importlib import import_module

from providers.base import Account, Provider

ADAPTERS: dict[str, str] = {
    "smtp": "providers.smtp:Smtp",
    "gmail_smtp": "providers.gmail_smtp:GmailSmtp",
    "outlook_smtp": "providers.outlook_smtp:OutlookSmtp",
    "postmark": "providers.postmark:Postmark",
    "mailgun": "providers.mailgun:Mailgun",
    "sparkpost": "providers.sparkpost:SparkPost",
    "gmail": "providers.gmail:Gmail",
    "microsoft365": "providers.microsoft365:Microsoft365",
}
"""Provider name -> where its class is. Imported only when a mailer of that kind is made or used."""

CONFIRMS_DELIVERY = frozenset({"postmark", "mailgun", "sparkpost"})
"""Providers that report delivery later: those whose adapter has ``confirms_delivery``.

For the others acceptance is the best news.
"""

SPEAK_SMTP = frozenset({"smtp", "gmail_smtp", "outlook_smtp"})
"""Providers that are reached by SMTP, not by HTTP."""


def adapter(name: str) -> type[Provider]:
    """The class behind a provider's name. Raises KeyError for a name that is not in `ADAPTERS`."""
    module, _, attribute = ADAPTERS[name].partition(":")
    found: type[Provider] = getattr(import_module(module), attribute)
    return found


def open_provider(account: Account) -> Provider:
    """An adapter for one account; connects when it first sends."""
    return adapter(account.provider)(account)
