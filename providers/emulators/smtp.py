"""An SMTP server on loopback that keeps what it takes and misbehaves on demand.

    with SmtpEmulator() as server:
        ...                                     send to 127.0.0.1, server.port
        server.received[0].recipients
        server.fail(Fault(Stage.DOT, Does.CLOSE, store=True))      the next mail is stored, its answer is lost

Recipients whose local part (up to a ``+``) is in `MAGIC` make it misbehave without any script.
"""

import socket
import threading
from types import TracebackType
from typing import Self

from providers.emulators.smtp_books import Books, Offer, Received
from providers.emulators.smtp_conversation import Conversation
from providers.emulators.smtp_faults import MAGIC, Does, Fault, Stage

__all__ = ["MAGIC", "Does", "Fault", "Offer", "Received", "SmtpEmulator", "Stage"]


class SmtpEmulator(Books):
    """Serves in threads between ``start`` and ``stop``, or as a context manager."""

    def __init__(
        self,
        offer: Offer | None = None,
        *,
        port: int = 0,
        keep_data: bool = True,
        latency: float = 0.0,
        receive_buffer: int = 0,
    ) -> None:
        """latency: seconds before each answer, as over a long way; pipelined ones wait together.
        receive_buffer: bytes the kernel may hold unread for a connection; 0 leaves it to the kernel.
        """
        super().__init__(offer or Offer(), keep_data=keep_data, latency=latency)
        self.connections = 0
        """How many there have been."""
        self._open: set[Conversation] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """In the form of a mailer's ``base_url``."""
        scheme = "smtps" if self.offer.implicit_tls else "smtp+starttls" if self.offer.certificate else "smtp"
        return f"{scheme}://127.0.0.1:{self.port}"

    def start(self) -> Self:
        threading.Thread(target=self._accept, name="smtp-emulator", daemon=True).start()
        return self

    def stop(self) -> None:
        """Closes every connection."""
        self.stopped.set()
        # A thread in accept() is woken by shutdown, not by close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def drop_connections(self, farewell: str = "") -> None:
        """Closes what is open, as a server does with idle clients, perhaps with a reply that nobody asked for."""
        with self.lock:
            conversations = list(self._open)
        for conversation in conversations:
            conversation.cut(farewell)

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            conversation = Conversation(self, sock)
            with self.lock:
                self.connections += 1
                self._open.add(conversation)
            threading.Thread(target=self._serve, args=(conversation,), name="smtp-emulator", daemon=True).start()

    def _serve(self, conversation: Conversation) -> None:
        try:
            conversation.run()
        finally:
            with self.lock:
                self._open.discard(conversation)
