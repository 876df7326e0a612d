"""The signs of phishing: what has them, and the honest mail that must not be taken for it."""

import time

import pytest

from models.content import Address, AttachmentRef, Content
from worker.hosts import brand_in_front, imitated, is_numeric, mixes_scripts, registrable, web_address
from worker.phishing import LINKS, READ, SIGNS, Suspicion, examine

THRESHOLD = 60


def read(
    html: str | None = None,
    *,
    text: str | None = None,
    subject: str = "Hello",
    sender: Address | None = None,
    files: tuple[AttachmentRef, ...] = (),
    values: dict[str, str] | None = None,
) -> Suspicion:
    content = Content(
        sender=sender or Address("hello@shop.com", "Shop"),
        subject=subject,
        html=html,
        text=text,
        individual=True,
        personalised=values is not None,
        attachments=files,
    )
    return examine(content, values)


def rules(suspicion: Suspicion) -> set[str]:
    return {reason["rule"] for reason in suspicion.reasons}


def link(href: str, words: str = "here") -> str:
    return f'<p>See <a href="{href}">{words}</a></p>'


def file(name: str, content_type: str = "application/octet-stream") -> AttachmentRef:
    return AttachmentRef(sha256="0" * 64, size=1, filename=name, content_type=content_type)


NEWSLETTER = """<html><head><style>.now{color:red}</style><title>News</title></head><body>
<p>New this week, only until Sunday!</p>
<a href="https://click.mailer.io/t/abc?u=1"><img src="data:image/png;base64,AAAA" alt="Sale"></a>
<a href="https://click.mailer.io/t/def">Shop now</a>
<a href="https://click.mailer.io/t/ghi">www.shop.com</a>
<a href="https://www.facebook.com/shop">Facebook</a> <a href="https://www.instagram.com/shop">Instagram</a>
<a href="mailto:help@shop.com">help@shop.com</a> <a href="tel:+49301234">030 1234</a>
<a href="{{unsubscribe_url}}">Unsubscribe</a>
<img src="https://track.mailer.io/o.gif" width="1" height="1"></body></html>"""

RESET = """<p>Hi {{name}}, you asked to reset your password. The link works within 24 hours.</p>
<p><a href="https://app.shop.com/reset?t={{token}}">Reset password</a></p>
<p>Or copy <a href="https://app.shop.com/reset?t={{token}}">https://app.shop.com/reset?t={{token}}</a></p>
<p>If you did not ask, sign in and change it immediately.</p>"""

HONEST = {
    "a newsletter with tracking": (NEWSLETTER, 0),
    "a password reset of the sender's own domain": (RESET, 20),
    "a link that names where it leads": (link("https://docs.python.org/3/", "docs.python.org"), 0),
    "a link to another host of the same domain": (link("https://eu.example.co.uk/a", "www.example.co.uk"), 0),
    "one's own domain through a tracker": (link("https://t.mailer.io/x", "https://www.shop.com/sale"), 0),
    "words with a dot in them": (link("https://learn.org/x", "Node.js 20.1 e.g. v1.2"), 0),
    "a price": (link("https://learn.org/x", "19.99"), 0),
    "an address in words": (link("https://learn.org/contact", "ann@gmail.com"), 0),
    "punctuation after a domain": (link("https://www.python.org/", "(see www.python.org, or ask)"), 0),
    "an international domain": (link("https://www.müller.de/", "www.müller.de"), 0),
    "a japanese domain": (link("https://日本語テスト.jp/"), 0),
    "a russian domain": (link("https://президент.рф/"), 0),
    "a variable as an address": (link("{{url}}"), 0),
    "a variable as a host": (link("https://{{host}}/x", "www.shop.com"), 0),
    "an anchor and a relative link": (link("#top", "paypal.com") + link("/a", "paypal.com"), 0),
    "a data image": ('<img src="data:image/png;base64,AAAA">', 0),
    "a shortened link": (link("https://bit.ly/x"), 10),
    "a survey": ('<form action="https://shop.com/s"><input name="q"></form>', 20),
    "urgent words without a link": ("<p>Urgent: verify your account</p>", 0),
    "pressure alone": (link("https://shop.com/") + "<p>Final notice, urgent</p>", 0),
    "the real brands": (link("https://www.paypal.com/") + link("https://www.amazon.co.uk/"), 0),
    "an at sign in a path": (link("https://medium.com/@ann"), 0),
}


@pytest.mark.parametrize("case", HONEST)
def test_honest_mail_scores_low(case: str) -> None:
    html, score = HONEST[case]
    found = read(html)
    assert (found.score, found.score < THRESHOLD) == (score, True), found.reasons


SUSPICIOUS = {
    "shown and real domain differ": (link("https://evil.org/login", "https://www.paypal.com/"), "link_mismatch"),
    "a bare domain": (link("https://evil.org/", "paypal.com"), "link_mismatch"),
    "a domain in pieces": (link("https://evil.org/", "w<b>ww.pay</b>pal.com"), "link_mismatch"),
    "a domain with invisible letters": (link("https://evil.org/", "pay&shy;pal&#8203;.com"), "link_mismatch"),
    "a domain in a sentence": (link("https://evil.org/", "Go to www.paypal.com, please"), "link_mismatch"),
    "an unclosed link": ('<a href="https://evil.org/">www.paypal.com', "link_mismatch"),
    "what only Outlook shows": (f"<!--[if mso]>{link('https://evil.org/', 'paypal.com')}<![endif]-->", "link_mismatch"),
    "an IP address": (link("http://192.0.2.7/x"), "numeric_host"),
    "an IPv6 address": (link("http://[2001:db8::1]:8080/x"), "numeric_host"),
    "an IP address as a number": (link("http://3221225991/"), "numeric_host"),
    "an IP address in hex": (link("http://0xc0.0x0.0x2.0x7/"), "numeric_host"),
    "spelling that browsers forgive": (link(" ht\ntp:\\\\192.0.2.7\\x"), "numeric_host"),
    "no scheme": (link("//192.0.2.7/"), "numeric_host"),
    "userinfo": (link("https://www.paypal.com@evil.org/"), "userinfo_link"),
    "cyrillic letters among latin": (link("https://pаypal.com/"), "lookalike_host"),
    "an all-cyrillic lookalike": (link("https://аррӏе.com/"), "lookalike_host"),
    "the same in A-labels": (link("https://xn--80ak6aa92e.com/"), "lookalike_host"),
    "digits for letters": (link("https://paypa1.com/"), "lookalike_host"),
    "pairs for letters": (link("https://rnicrosoft-login.com/"), "lookalike_host"),
    "accents": (link("https://www.páypal.com/"), "lookalike_host"),
    "mixed scripts": (link("https://gаrden.org/"), "mixed_script_host"),
    "A-labels of nothing": (link("https://xn--a-ecp.ru/"), "mixed_script_host"),
    "a brand in front": (link("https://paypal.com.account.org/"), "brand_subdomain"),
    "a password field": ('<form><input TYPE=" Password"></form>', "password_field"),
    "a form that posts to an address": ('<form action="http://192.0.2.7/"><input></form>', "numeric_host"),
    "a script link": (link("JavaScript:alert(1)"), "script_link"),
    "a script link in pieces": (link("java&#10;script:alert(1)"), "script_link"),
    "a data link": (link("data:text/html,hi"), "script_link"),
}


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_a_sign_of_phishing_is_found(case: str) -> None:
    html, rule = SUSPICIOUS[case]
    assert rule in rules(read(html))


@pytest.mark.parametrize(
    ("name", "content_type", "rule"),
    [
        ("setup.exe", "application/octet-stream", "executable_attachment"),
        ("SETUP.EXE. ", "application/pdf", "executable_attachment"),
        ("run.js", "text/plain", "executable_attachment"),
        ("tool", "application/x-msdownload", "executable_attachment"),
        ("invoice.pdf.vbs", "application/pdf", "disguised_attachment"),
        ("invoice.pdf.html", "text/html", "disguised_attachment"),
        ("invoice\u202efdp.exe", "application/pdf", "disguised_attachment"),
        ("book.xlsm", "application/vnd.ms-excel", "macro_attachment"),
        ("page.html", "text/html", "page_attachment"),
    ],
)
def test_a_dangerous_attachment_is_found(name: str, content_type: str, rule: str) -> None:
    assert rule in rules(read(files=(file(name, content_type),)))


@pytest.mark.parametrize(
    "name", ["report.pdf", "q3.final.xlsx", "v1.2.tar.gz", "exe", "notes.txt", "photo.jpg", ".exe.pdf"]
)
def test_a_harmless_attachment_is_not_suspected(name: str) -> None:
    assert read(files=(file(name),)).score == 0


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("service@paypal.com", True),
        ("paypal.com support", True),
        ("shop.com", False),
        ("Dr. No", False),
        ("Ann", False),
    ],
)
def test_a_sender_name_that_shows_another_domain_is_found(name: str, found: bool) -> None:
    assert ("other_sender_name" in rules(read("<p>Hi</p>", sender=Address("a@shop.com", name)))) is found


def test_the_classic_is_over_the_threshold() -> None:
    body = "<p>Your account has been suspended. Verify your account within 24 hours.</p>"
    found = read(body + link("https://evil.org/login", "https://www.paypal.com/signin"))
    assert found.score == THRESHOLD
    assert rules(found) == {"link_mismatch", "urgent_wording"}
    assert found.reasons[0]["examples"] == ["paypal.com leads to evil.org"]


def test_links_in_plain_text_are_read_too() -> None:
    assert rules(read(text="Visit http://192.0.2.7/x now.\nOr (http://paypa1.com).")) == {
        "numeric_host",
        "lookalike_host",
    }


def test_values_of_variables_are_read_in_their_place() -> None:
    html = link("{{url}}", "{{shown}}")
    found = read(html, values={"url": "https://evil.org/?a=1&b=2", "shown": "www.paypal.com"})
    assert rules(found) == {"link_mismatch"}


def test_the_score_ends_at_a_hundred_and_each_sign_counts_once() -> None:
    assert read(link("http://192.0.2.7/") + link("http://192.0.2.8/")).score == 40
    everything = "".join(html for html, _ in SUSPICIOUS.values())
    assert read(everything).score == 100


def test_the_gravest_reason_comes_first_with_at_most_three_examples() -> None:
    found = read(link("https://bit.ly/x") + "".join(link(f"http://192.0.2.{last}/") for last in range(9)))
    assert [reason["rule"] for reason in found.reasons] == ["numeric_host", "shortened_link"]
    assert len(found.reasons[0]["examples"]) == 3


def test_examples_never_carry_what_follows_a_host() -> None:
    found = read(link("https://user:secret@evil.org/path?token=secret", "https://www.paypal.com/secret"))
    assert found.reasons
    assert "secret" not in str(found.to_json())


def test_the_end_of_long_html_is_read_though_its_middle_is_not() -> None:
    filler = "<p>words</p>" * (READ // 8)
    assert rules(read(filler + link("http://192.0.2.7/"))) == {"numeric_host"}
    many = "".join(link(f"https://shop.com/{number}") for number in range(LINKS * 2))
    assert rules(read(many + link("http://192.0.2.7/"))) == {"numeric_host"}


@pytest.mark.parametrize(
    "html",
    [
        "<svg>" + "<a href=x>" * 100_000,
        "<a href='" * 100_000,
        "<!--[if" * 140_000,
        "www." * 250_000,
        link("https://shop.com", "a." * 400_000),
        "".join(f"<a href='https://h{number}.org/'>w.h{number}.org</a>" for number in range(25_000)),
    ],
)
def test_hostile_html_takes_no_longer_than_other(html: str) -> None:
    started = time.process_time()
    read(html)
    assert time.process_time() - started < 2


def test_every_sign_is_explained_and_none_has_the_name_of_another() -> None:
    assert len({sign.name for sign in SIGNS}) == len(SIGNS)
    assert all(0 < sign.points <= THRESHOLD and sign.explanation.endswith(".") for sign in SIGNS)


@pytest.mark.parametrize(
    ("href", "host"),
    [
        ("https://A.Example.ORG:443/x", "a.example.org"),
        ("HTTP:/example.org", "example.org"),
        ("https://müller.de", "xn--mller-kva.de"),
        ("https://ex%61mple.org./", "example.org"),
        ("https://ｅxample.org", "example.org"),
        ("https:///", None),
        ("mailto:a@example.org", None),
        ("example.org", None),
        ("", None),
    ],
)
def test_an_address_is_read_as_a_browser_reads_it(href: str, host: str | None) -> None:
    found = web_address(href)
    assert (found.host if found else None) == host


def test_hosts_are_judged_by_what_was_registered() -> None:
    assert registrable("a.b.example.co.uk") == "example.co.uk"
    assert registrable("ann.github.io") == "ann.github.io"
    assert registrable("192.0.2.7") == "192.0.2.7"
    assert brand_in_front("google.com.au") is None
    assert imitated("googleplex.com") is None
    assert imitated("amazon.de") is None
    assert not is_numeric("4chan.org")
    assert not mixes_scripts("xn--mller-kva.de")
