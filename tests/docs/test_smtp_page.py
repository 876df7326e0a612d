"""The table of credentials in docs/smtp.md and what the API takes."""

import re

from providers.smtp import Smtp
from tests.docs.pages import BY_NAME


def test_the_table_of_smtp_credentials_is_what_the_api_takes() -> None:
    rows = re.findall(r"^\| (`.+?`) \| (.+) \|$", BY_NAME["docs/smtp.md"].text, re.MULTILINE)
    table = {name: meaning for names, meaning in rows for name in re.findall(r"`(\w+)`", names)}
    assert [name for name in Smtp.credentials if name not in table] == []
    for name in ("auth", "security"):
        assert tuple(re.findall(r"`(\w+)`", table[name])) == Smtp.credentials[name].kind
