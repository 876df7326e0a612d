"""The table of credentials in docs/smtp.md and what the API takes."""

import re
from typing import get_args

from api_shim.credentials import SmtpCredentials
from tests.docs.pages import BY_NAME


def test_the_table_of_smtp_credentials_is_what_the_api_takes() -> None:
    rows = re.findall(r"^\| (`.+?`) \| (.+) \|$", BY_NAME["docs/smtp.md"].text, re.MULTILINE)
    table = {name: meaning for names, meaning in rows for name in re.findall(r"`(\w+)`", names)}
    fields = SmtpCredentials.model_fields
    assert [name for name in fields if name not in table] == []
    mechanisms, _ = get_args(fields["auth"].annotation)
    assert re.findall(r"`(\w+)`", table["auth"]) == list(get_args(mechanisms))
    security = get_args(fields["security"].annotation)
    assert re.findall(r"`(\w+)`", table["security"]) == list(security)
