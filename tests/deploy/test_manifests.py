"""What deploys postroad is valid by the schemas of those who read it, and says what the program really takes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from deploy.cli import postroad
from worker.bell import QUEUES
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES_VERSION = "1.33"
OURS = ("keda.sh", "kustomize.config.k8s.io")
"""Groups that Kubernetes' own schemas do not know."""

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def _objects(pattern: str = "*.yaml") -> list[dict[str, Any]]:
    return [
        each for path in sorted((DEPLOY / "kubernetes").glob(pattern)) for each in yaml.safe_load_all(path.read_text())
    ]


def _name(each: dict[str, Any]) -> str:
    return f"{each['kind']} {each.get('metadata', {}).get('name', '')}"


STANDARD = [each for each in _objects() if not each["apiVersion"].startswith(OURS)]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PODS = {
    each["metadata"]["name"]: each["spec"]["template"]["spec"]
    for each in STANDARD
    if each["kind"] in ("Deployment", "Job")
}


@pytest.mark.parametrize("each", STANDARD, ids=_name)
def test_a_manifest_is_what_kubernetes_takes(each: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True) == KUBERNETES_VERSION


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_not_root_and_writes_nowhere(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"requests", "limits"} <= container["resources"].keys()


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours that some file runs."""
    for name, pod in PODS.items():
        (container,) = pod["containers"]
        yield name, container["args"]
        for probe in ("livenessProbe", "startupProbe"):
            if command := container.get(probe, {}).get("exec", {}).get("command"):
                yield f"{name} {probe}", command[1:]
    for name, service in COMPOSE["services"].items():
        if service["image"] == "postroad":
            yield f"compose {name}", service["command"]
            test = service.get("healthcheck", {}).get("test", [])
            if test[1:2] == ["postroad"]:
                yield f"compose {name} healthcheck", test[2:]
    for unit in UNITS:
        yield f"systemd {unit.stem}", re.findall(r"^ExecStart=\S+ (.*)$", unit.read_text(), re.MULTILINE)[0].split()


COMMANDS = dict(_commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_run_is_a_command_that_exists(name: str) -> None:
    command, *arguments = COMMANDS[name]
    context = click.Context(postroad)
    found = postroad.get_command(context, command)
    assert found is not None
    parsed = found.make_context(command, list(arguments), parent=context)
    queues = parsed.params.get("queues")
    assert queues is None or queues == "%i" or set(queues.split(",")) <= set(QUEUES)


def test_every_queue_has_a_worker_and_the_worker_a_probe_everywhere() -> None:
    for run in (
        _queues("postroad-", ""),
        _queues("postroad-", " livenessProbe"),
        _queues("compose ", ""),
        _queues("compose ", " healthcheck"),
    ):
        assert sorted(run) == sorted(QUEUES)
    wanted = (DEPLOY / "systemd" / "postroad.target").read_text()
    assert sorted(re.findall(r"postroad-worker@([\w.]+)\.service", wanted)) == sorted(QUEUES)


def _queues(prefix: str, suffix: str) -> list[str]:
    return [
        arguments[2]
        for name, arguments in COMMANDS.items()
        if name.startswith(prefix)
        and name.endswith(suffix)
        and arguments[:2] == ["worker", "--queues"]
        and " " not in name.removeprefix(prefix).removesuffix(suffix)
    ]


def test_autoscaling_reads_numbers_that_the_queues_have() -> None:
    triggers = [
        trigger
        for each in _objects("autoscaling-keda.yaml")
        if each["kind"] == "ScaledObject"
        for trigger in each["spec"]["triggers"]
    ]
    asked = {trigger["metadata"]["valueLocation"] for trigger in triggers}
    fields = {"ready", "oldest_age_seconds"}
    # A dot in a key is escaped in GJSON's paths.
    assert asked == {f"queues.{queue.replace('.', chr(92) + '.')}.{field}" for queue in QUEUES for field in fields}
    assert {trigger["metadata"]["url"] for trigger in triggers} == {
        "http://postroad-api.postroad.svc:8025/v1/ops/queues"
    }


def test_what_is_scaled_protected_and_selected_exists() -> None:
    names = set(PODS)
    components = {
        each["metadata"]["labels"]["app.kubernetes.io/component"] for each in STANDARD if each["kind"] == "Deployment"
    }
    for each in _objects():
        spec = each.get("spec", {})
        if target := spec.get("scaleTargetRef"):
            assert target["name"] in names, _name(each)
        selector = spec.get("selector", {})
        labels = selector.get("matchLabels", selector)
        assert {labels.get("app.kubernetes.io/component")} <= components | {None}, _name(each)


def test_the_kustomization_names_every_file_but_the_autoscalers() -> None:
    (kustomization,) = _objects("kustomization.yaml")
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    left = files - set(kustomization["resources"]) - {"kustomization.yaml"}
    assert left == {"autoscaling-plain.yaml", "autoscaling-keda.yaml"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_builds_it_in_one_namespace() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True, timeout=60
    )
    objects = list(yaml.safe_load_all(built.stdout))
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {"postroad"}
    images = {
        c["image"]
        for each in objects
        if each["kind"] == "Deployment"
        for c in each["spec"]["template"]["spec"]["containers"]
    }
    assert images == {"registry.example.com/postroad:0.1.0"}


def test_the_compose_file_is_what_compose_takes() -> None:
    """Checked as it is after YAML's merge keys."""
    parsed = PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    assert sorted(parsed.service_names()) == sorted(COMPOSE["services"])
    for service in COMPOSE["services"].values():
        if service["image"] == "postroad":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]


def test_every_setting_that_is_set_exists() -> None:
    known = {f"POSTROAD_{name.upper()}" for name in Settings.model_fields}
    files = [DEPLOY / "compose.yaml", *(DEPLOY / "kubernetes").glob("*.yaml"), *UNITS]
    named = {word for path in files for word in re.findall(r"\bPOSTROAD_[A-Z_]+\b", path.read_text())}
    assert {"POSTROAD_DATABASE_URL", "POSTROAD_SECRET_KEYS"} <= named <= known


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists here."""
    for path in (DEPLOY / "systemd").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/postroad/bin/postroad", "/bin/true"))
    return tmp_path


systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@systemd
def test_systemd_understands_every_line_of_the_units(units: Path) -> None:
    names = [
        "postroad.target",
        "postroad-api.service",
        "postroad-beat.service",
        "postroad-inbound.service",
        "postroad-migrate.service",
        "postroad-worker@send.high.service",
    ]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(units / name for name in names)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "postroad" in line]
    assert (done.returncode, complaints) == (0, [])


@systemd
@pytest.mark.parametrize("name", [unit.name.replace("@", "@followup") for unit in UNITS])
def test_a_unit_can_do_little_harm(name: str, units: Path) -> None:
    """By systemd's own rule, 0 (best) to 10, here times ten."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", units / name],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unrecognized option" in done.stderr or "offline" in done.stderr:
        pytest.skip("this systemd-analyze is too old")
    assert done.returncode == 0, done.stdout[-300:]


def test_the_image_is_built_from_the_lock_and_does_not_run_as_root() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert [line for line in last_stage if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any("--require-hashes -r deploy/requirements.txt" in line for line in lines)
    copied = [line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text()
    assert all(f"!{name.partition('/')[0]}" in ignored for name in copied)
    assert f"python:{sys.version_info.major}." in lines[2]
