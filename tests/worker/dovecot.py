"""A real IMAP server on loopback, where one is installed: Dovecot with one user and a folder of files.

Its home must lie where everybody may look: a server started by root reads mail as somebody else.
"""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from deploy.services import free_port

USER, PASSWORD = "replies", "sesame"
PROGRAM = shutil.which("dovecot", path="/usr/sbin:/usr/local/sbin:/usr/bin")

_CONFIG = """
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain {mechanisms}
default_login_user = nobody
default_internal_user = {owner}
default_internal_group = {group}
first_valid_uid = 0
mail_location = maildir:{home}/mail
mailbox_idle_check_interval = 1 secs
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = passwd-file
  args = scheme=plain username_format=%u {home}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}
}}
"""


class Dovecot:
    """Started on entering, stopped on leaving."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self._number = 0

    def __enter__(self) -> "Dovecot":
        (self.home / "run").mkdir(parents=True)
        self._write_config()
        (self.home / "users").write_text(f"{USER}:{PASSWORD}\n")
        self.home.chmod(0o755)
        for folder in (self.mailbox, *(self.mailbox / name for name in ("cur", "new", "tmp"))):
            folder.mkdir()
            os.chown(folder, self._reader.pw_uid, self._reader.pw_gid)
        assert PROGRAM is not None
        self._process = subprocess.Popen([PROGRAM, "-F", "-c", str(self.home / "config")], start_new_session=True)
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # nothing of it is to be kept
        self._process.wait(60)

    @property
    def mailbox(self) -> Path:
        return self.home / "mail"

    @property
    def _reader(self) -> pwd.struct_passwd:
        """Who reads the mail: Dovecot does not as root."""
        return pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())

    def _write_config(self) -> None:
        owner, reader = pwd.getpwuid(os.getuid()), self._reader
        values = {
            "home": self.home, "port": self.port, "owner": owner.pw_name, "group": grp.getgrgid(owner.pw_gid).gr_name,
            "uid": reader.pw_uid, "gid": reader.pw_gid, "mechanisms": "xoauth2",
        }  # fmt: skip
        (self.home / "config").write_text(_CONFIG.format(**values))

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                if connection.recv(4).startswith(b"* OK"):
                    return
            time.sleep(0.05)
        log = self.home / "log"
        raise AssertionError(f"Dovecot does not answer: {log.read_text() if log.exists() else 'it wrote no log'}")

    def put(self, raw: bytes) -> None:
        """Delivers a mail into the folder."""
        self._number += 1
        name = f"{int(time.time())}.{self._number}.test"
        (self.mailbox / "tmp" / name).write_bytes(raw)
        (self.mailbox / "tmp" / name).rename(self.mailbox / "new" / name)

    def renumber(self) -> None:
        """Forgets the UIDs: the folder gets another UIDVALIDITY."""
        for file in self.mailbox.glob("dovecot*"):
            file.unlink()
