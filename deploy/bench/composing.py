"""How long it takes to make a mail of its parts, by itself."""

from deploy.bench.report import Figure, Report
from worker import compose_speed
from worker.dkim import Algorithm


def measure(report: Report) -> None:
    speed = compose_speed.measure()
    report.add(
        Figure(name="compose", title="making a mail with four variables", value=speed.variables_us, unit="µs"),
        Figure(name="compose_everything", title="the same, all tracked", value=speed.everything_us, unit="µs"),
        Figure(name="sign_rsa", title="signing it with RSA besides", value=speed.signed_us[Algorithm.RSA], unit="µs"),
        Figure(name="sign_ed25519", title="or with Ed25519", value=speed.signed_us[Algorithm.ED25519], unit="µs"),
        Figure(name="compile", title="compiling the content, once a submission", value=speed.compile_ms, unit="ms"),
    )  # fmt: skip
