"""S13: ``storage_path`` reads what lies in the workspace's own folder and nothing else."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from api_shim.attachments import read_attachments
from api_shim.errors import ApiError
from api_shim.submission import NewAttachment
from worker.settings import Settings

WORKSPACE = UUID("01938f4e-7c1a-7b3e-9d52-6f0a8c4e1b27")
OTHER = UUID("01938f4e-7c1a-7b3e-9d52-6f0a8c4e1b28")


@pytest.fixture
def store(tmp_path: Path, settings: Settings) -> Settings:
    root = tmp_path / "store"
    for workspace in (WORKSPACE, OTHER):
        (root / str(workspace) / "2026").mkdir(parents=True)
        (root / str(workspace) / "2026" / "a.txt").write_text(f"of {workspace}")
    (tmp_path / "secret.txt").write_text("secret")
    (root / str(WORKSPACE) / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / str(WORKSPACE) / "up").symlink_to(tmp_path)
    (root / str(WORKSPACE) / "neighbour").symlink_to(root / str(OTHER))
    return settings.model_copy(update={"attachment_root": str(root)})


def read(settings: Settings, path: str) -> Any:
    file = NewAttachment(field="attachments[0]", filename="a.txt", content_type="text/plain", storage_path=path)
    [attachment] = read_attachments(settings, WORKSPACE, [file])
    return attachment.data


def test_s13_a_file_of_ones_own_is_read(store: Settings) -> None:
    assert read(store, "2026/a.txt") == f"of {WORKSPACE}".encode()


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt", "../../secret.txt", f"../{OTHER}/2026/a.txt", "2026/../../secret.txt", "/etc/hostname", "//x", "",
        ".", "..", "2026", "2026/./../..", "..\\secret.txt", "C:\\a.txt", "file:///etc/hostname", "s3://169.254.169.254/a",
        "http://169.254.169.254/", "2026/a.txt\0", "2026/%2e%2e/%2e%2e/secret.txt", "%2e%2e/secret.txt", "link.txt",
        "up/secret.txt", "neighbour/2026/a.txt", "~/a.txt", "$HOME/a.txt", "a" * 5000, "x/" * 2000,
    ],
)  # fmt: skip
def test_s13_nothing_else_is(store: Settings, path: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(store, path)
    assert refused.value.code.name == "VALIDATION_ERROR"
