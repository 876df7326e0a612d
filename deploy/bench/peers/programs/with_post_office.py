"""django-post_office: a template and ``send_many`` into PostgreSQL, then ``send_queued_mail`` with two processes."""

from collections.abc import Sequence
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command
from psycopg.conninfo import conninfo_to_dict

from .job import Variables
from .mail import JOB

_NAMES = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
_database = conninfo_to_dict(JOB.database_url)

settings.configure(
    INSTALLED_APPS=["post_office"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            **{name: _database[parameter] for name, parameter in _NAMES.items()},
        }
    },
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    EMAIL_BACKEND="post_office.EmailBackend",
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=JOB.port,
    USE_TZ=True,
)
django.setup()


def prepare() -> None:
    from post_office.models import EmailTemplate

    call_command("migrate", verbosity=0)
    EmailTemplate.objects.create(name="news", subject=JOB.subject, content=JOB.text, html_content=JOB.html)


def submit(people: Sequence[tuple[str, Variables]]) -> None:
    from post_office import mail

    mail.send_many(
        [
            {"recipients": address, "sender": JOB.sender, "template": "news", "context": variables}
            for address, variables in people
        ]
    )
    call_command("send_queued_mail", processes=2, lockfile=str(Path(JOB.folder) / "post_office"))
