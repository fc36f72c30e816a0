"""The HTTP port that Prometheus reads, on threads of its own; in TLS when there is a certificate."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

HANDSHAKE_SECONDS = 5.0

Context = Callable[[], ssl.SSLContext]


class MetricsServer:
    """Listens from the start.

    Args:
        registry: what is read.
        host, port: where; port 0 is any free one.
        tls: gives the certificate's context, asked for every connection; None speaks in the clear.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int, tls: Context | None = None) -> None:
        self._host = host
        self._server = _server_class(host)((host, port), _Silent)
        self._server.tls = tls
        self._server.set_app(make_wsgi_app(registry))
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        stopping = threading.Thread(target=self._server.shutdown)
        stopping.start()
        # It looks twice a second whether it should stop, and at once when somebody connects.
        with contextlib.suppress(OSError):
            socket.create_connection((self._host, self.port), timeout=1.0).close()
        stopping.join()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    tls: Context | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands on the connection's own thread: who connects and then says nothing holds up nobody else."""
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(HANDSHAKE_SECONDS)
        with contextlib.suppress(OSError), self.tls().wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is its own affair."""


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Scrapes are no news."""


def _server_class(host: str) -> type[_Server]:
    if ":" not in host:
        return _Server
    return type("_ServerOnIpv6", (_Server,), {"address_family": socket.AF_INET6})
