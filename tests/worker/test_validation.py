"""The rules about recipient addresses, without a network."""

import pytest

from worker.domains import Mail
from worker.validation import Hint, Standing, edits, examine, is_disposable, malformed, meant_domain


@pytest.mark.parametrize("mail", [Mail.NO_DOMAIN, Mail.NO_SERVER, Mail.REFUSED])
def test_an_address_whose_domain_takes_no_mail_is_invalid_and_says_why(mail: Mail) -> None:
    verdict = examine("ann@shop.org", mail)
    assert verdict.standing is Standing.INVALID
    assert "shop.org" in (verdict.reason or "")


@pytest.mark.parametrize(
    ("email", "mail", "standing", "hints"),
    [
        ("ann@shop.org", Mail.TAKEN, Standing.VALID, ()),
        ("info@shop.org", Mail.TAKEN, Standing.VALID, (Hint.ROLE,)),
        ("Admin+x@shop.org", Mail.TAKEN, Standing.VALID, (Hint.ROLE,)),
        ("information@shop.org", Mail.TAKEN, Standing.VALID, ()),
        ("ann@shop.org", Mail.UNKNOWN, Standing.UNKNOWN, ()),
        ("ann@mailinator.com", Mail.TAKEN, Standing.RISKY, (Hint.DISPOSABLE,)),
        ("ann@box.mailinator.com", Mail.UNKNOWN, Standing.RISKY, (Hint.DISPOSABLE,)),
        ("ann@gmial.com", Mail.TAKEN, Standing.RISKY, (Hint.TYPO,)),
    ],
)
def test_what_can_be_delivered_is_never_invalid(
    email: str, mail: Mail, standing: Standing, hints: tuple[Hint, ...]
) -> None:
    verdict = examine(email, mail)
    assert (verdict.standing, verdict.hints) == (standing, hints)
    assert (verdict.reason is None) == (standing is Standing.VALID)


def test_a_misspelt_domain_that_takes_no_mail_is_invalid_with_the_address_that_was_meant() -> None:
    verdict = examine("ann@hotmial.com", Mail.NO_DOMAIN)
    assert (verdict.standing, verdict.suggestion) == (Standing.INVALID, "ann@hotmail.com")


@pytest.mark.parametrize(
    ("domain", "meant"),
    [
        ("gmial.com", "gmail.com"),
        ("gmai.com", "gmail.com"),
        ("gmail.con", "gmail.com"),
        ("gmail.co", "gmail.com"),
        ("GMAIL.CM", "gmail.com"),
        ("yahooo.com", "yahoo.com"),
        ("hotmial.com", "hotmail.com"),
        ("outlok.com", "outlook.com"),
        ("iclod.com", "icloud.com"),
        ("protnmial.com", "protonmail.com"),
        ("tonline.de", "t-online.de"),
        ("yahoo.com", None),
        ("yahoo.de", None),
        ("hotmail.fr", None),
        ("outlook.de", None),
        ("mail.com", None),
        ("email.com", None),
        ("ymail.com", None),
        ("postmail.com", None),
        ("horizon.net", None),
        ("gmx.com", None),
        ("aol.com", None),
        ("shop.org", None),
    ],
)
def test_a_misspelt_large_provider_is_recognised_and_a_name_of_its_own_is_not(domain: str, meant: str | None) -> None:
    assert meant_domain(domain) == meant


@pytest.mark.parametrize(
    ("one", "other", "number"),
    [("", "", 0), ("a", "", 1), ("gmial", "gmail", 1), ("ca", "abc", 3), ("kitten", "sitting", 3), ("abcd", "badc", 2)],
)
def test_edits_count_a_swap_of_neighbours_as_one(one: str, other: str, number: int) -> None:
    assert edits(one, other) == edits(other, one) == number


@pytest.mark.parametrize("domain", ["gmail.com", "notmailinator.com", "com", "mailinator.com.shop.org"])
def test_a_domain_that_merely_holds_a_disposable_one_is_not_disposable(domain: str) -> None:
    assert not is_disposable(domain)


def test_what_is_no_address_is_invalid() -> None:
    assert malformed("ann@").standing is Standing.INVALID
