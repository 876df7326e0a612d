"""The mails whose bytes lie in ``golden/``: what people really send, each tracked and with an unsubscribe link.

``autumn.html`` was made from ``autumn.mjml`` with mjml 5.4.1. After a wanted change, ``python -m tests.worker.golden_mails``
writes the files anew; a difference is a change of what recipients get, so read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.content import Address, Content
from tests.worker.samples import EVERYTHING, OUTLOOK_ID, attached, content, letter, mime, stored
from worker.compose import Letter

GOLDEN = Path(__file__).parent / "golden"

FILENAMES = (
    "report.pdf", "Übersicht für Jürgen – Straße.pdf", "facture d’été.pdf", "Смета на ремонт.xlsx", "Προσφορά.pdf",
    "דו״ח שנתי.pdf", "تقرير المبيعات.pdf", "گزارش‌ها.pdf", "报告 第一部分.docx", "見積書（最終）.pdf", "견적서.pdf",
    "รายงาน.pdf", "रिपोर्ट.pdf", "அறிக்கை.pdf", "հաշվետվություն.pdf", "ანგარიში.pdf", "báo cáo tổng kết.pdf", "😀 👩‍💻.png",
    "a 'b' \"c\" 100%; d=e.txt", f"{'long name ' * 20}.txt",
)  # fmt: skip
"""A name in every script, and those that break the quoting of RFC 2231."""

LONG_LINES = "\n".join(
    (
        ".", "..", ". a dot", "From here on it gets long:", "x" * 5_000, "語" * 2_000, f"trailing spaces{' ' * 3}",
        "trailing tab\t", "=3D is no equals sign, = is", "--", "-- ", "\ttab first", "bare\rcarriage return", "crlf\r", ".",
    )
)  # fmt: skip
"""What naive senders lose on the way: dots at line starts, From, trailing white space, line ends of every kind."""

TINY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)
TINY_GIF = (
    b"GIF89a\x01\x00\x01\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01\x00;"
)
INNER = (
    "From: Zoe <zoe@example.test>\nTo: hello@demo.test\nSubject: inner\nDate: Sat, 21 Nov 2026 10:00:00 +0000\n"
    'MIME-Version: 1.0\nContent-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 8bit\n\n.\nGrüße\n'
).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenMail:
    content: Content
    letter: Letter
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        return mime(self.content, self.letter, self.files)


def newsletter() -> GoldenMail:
    """Written for Outlook by hand: VML, conditional comments, a text of its own."""
    mail = content(
        sender=Address("news@demo.test", "Démo News"),
        subject="{{name}}, your autumn offers",
        html=(GOLDEN / "newsletter.html").read_text(),
        text="Hello {{name}},\n\nsee https://shop.demo.test/?utm=a&b=c\n",
        headers={"List-Id": "<news.demo.test>"},
        settings=EVERYTHING,
    )
    return GoldenMail(content=mail, letter=letter())


def mjml() -> GoldenMail:
    """What mjml makes, without a text."""
    mail = content(
        sender=Address("herbst@demo.test", "Demo"),
        subject="Grüße aus dem Wald, {{name}}",
        html=(GOLDEN / "autumn.html").read_text(),
        text=None,
        settings=EVERYTHING,
    )
    to = Address("joerg@example.test", "Jörg Weiß")
    note = letter({"name": "Jörg", "code": "a&b=ü"}, to=to, recipients=(to.email,))
    return GoldenMail(content=mail, letter=note)


def rtl() -> GoldenMail:
    """Hebrew and Arabic, with digits and Latin words between."""
    mail = content(
        sender=Address("shalom@demo.test", "חנות הדגמה"),
        subject="שלום {{name}} — مرحبا: הזמנה 42 (PDF)",
        html=(
            '<html dir="rtl" lang="he"><body><p>שלום {{name}}, ההזמנה 42 בדרך.</p>\n'
            '<p dir="rtl" lang="ar">مرحبا {{name}}، طلبك رقم ٤٢ في الطريق.</p>\n'
            '<p><a href="https://demo.test/הזמנה/42?שם={{name}}">לצפייה בהזמנה</a></p></body></html>'
        ),
        text="שלום {{name}},\n\nההזמנה 42 בדרך.\nمرحبا، طلبك رقم ٤٢ في الطريق.\u200f\n",
        reply_to=(Address("help@demo.test", "خدمة العملاء"),),
        settings=EVERYTHING,
    )
    to = Address("noa@example.test", "נועה לוי")
    return GoldenMail(content=mail, letter=letter({"name": "נועה"}, to=to, recipients=(to.email,)))


def cjk() -> GoldenMail:
    """Chinese, Japanese and Korean; a character outside the basic plane; an international domain in a link."""
    mail = content(
        sender=Address("news@demo.test", "株式会社デモ 営業部"),
        subject="【重要】{{name}}様：夏季休業のお知らせ（八月十三日から八月十六日まで）／放假通知／휴무 안내",
        html=(
            f'<html lang="ja"><body><p>{{{{name}}}}様</p><p>{"平素より格別のご高配を賜り、厚く御礼申し上げます。" * 8}</p>\n'
            '<p lang="zh"><a href="https://例え.test/案内?頁=1&amp;q={{name}}">詳しくはこちら</a>。祝您假期愉快𠮷</p>\n'
            '<p lang="ko">즐거운 휴가 보내세요.</p></body></html>'
        ),
        text=f"{{{{name}}}}様\n\n{'平素より格別のご高配を賜り、厚く御礼申し上げます。' * 8}\n즐거운 휴가 보내세요. 𠮷\n",
        settings=EVERYTHING,
    )
    to = Address("taro@example.test", "山田 太郎")
    return GoldenMail(content=mail, letter=letter({"name": "山田"}, to=to, recipients=(to.email,)))


def attachments() -> GoldenMail:
    """Twenty, as a reply in a thread that Outlook began."""
    files = [f"file {number}\n".encode() * (number * 7) for number in range(len(FILENAMES))]
    refs = tuple(attached(data, name, "application/pdf") for data, name in zip(files, FILENAMES, strict=True))
    mail = content(
        attachments=refs,
        references=("<root@example.test>", OUTLOOK_ID),
        in_reply_to=OUTLOOK_ID,
        settings=EVERYTHING,
    )
    return GoldenMail(content=mail, letter=letter(), files=stored(*files))


def images() -> GoldenMail:
    """Inline images found by content id, beside an attachment and a mail that is passed on."""
    refs = (
        attached(TINY_PNG, "logo.png", "image/png", inline=True, content_id="logo.1@demo.test"),
        attached(TINY_GIF, "Füller.gif", "image/gif", inline=True, content_id="filler", content_location="f.gif"),
        attached(b"%PDF-1.4\n\x00\xff\n%%EOF\n", "price list.pdf", "application/pdf"),
        attached(INNER, "the question.eml", "message/rfc822"),
    )
    mail = content(
        subject="Pictures",
        html='<p><img src="cid:logo.1@demo.test" alt="Demo"> Hello {{name}} <img src="cid:filler" alt=""></p>',
        text=None,
        attachments=refs,
        settings=EVERYTHING,
    )
    return GoldenMail(
        content=mail, letter=letter(), files=stored(TINY_PNG, TINY_GIF, b"%PDF-1.4\n\x00\xff\n%%EOF\n", INNER)
    )


def dots() -> GoldenMail:
    """Lines that SMTP, mailbox files or line limits would change."""
    mail = content(
        subject="." + " word" * 60,
        html=f"<pre>{LONG_LINES}</pre>\n.\n",
        text=f"{LONG_LINES}\n{{{{name}}}}\n.\n",
        headers={"X-Long": "y" * 500, "X-Words": "several words " * 40 + "end"},
        attachments=(attached(LONG_LINES.encode(), ".dots.txt", "text/plain"),),
        settings=EVERYTHING,
    )
    return GoldenMail(content=mail, letter=letter({"name": ".\r\n."}), files=stored(LONG_LINES.encode()))


def eai() -> GoldenMail:
    """Addresses beyond ASCII (RFC 6531 and 6532)."""
    mail = content(
        sender=Address("jörg@bücher.test", "Jörg Bücher"),
        subject="Grüße",
        html="<p>您好 {{name}}</p>",
        text="您好 {{name}}\n",
        reply_to=(Address("δοκιμή@παράδειγμα.test", "Δοκιμή"),),
        settings=EVERYTHING,
    )
    to = Address("用户@例え.test", "用户")
    return GoldenMail(content=mail, letter=letter({"name": "用户"}, to=to, recipients=(to.email,)))


MAILS: Mapping[str, Callable[[], GoldenMail]] = {
    made.__name__: made for made in (newsletter, mjml, rtl, cjk, attachments, images, dots, eai)
}

if __name__ == "__main__":
    for name, make in MAILS.items():
        (GOLDEN / f"{name}.eml").write_bytes(make().raw)
