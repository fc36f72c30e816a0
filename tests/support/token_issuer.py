"""An issuer of tokens: keys of its own, a JWKS document in a file or behind HTTP, real signatures."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.example", "hope"


class TokenIssuer:
    """Signs with the key called ``k1`` until ``rotate`` makes another."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self._algorithm = algorithm
        self._number = 0
        self.asked = 0
        self.rotate()

    def rotate(self) -> None:
        """A new key; tokens of the former one no longer verify."""
        self._number += 1
        rsa_key = self._algorithm.startswith("RS")
        self.key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())

    @property
    def kid(self) -> str:
        return f"k{self._number}"

    def document(self) -> bytes:
        """The JWKS document."""
        kind = RSAAlgorithm if self._algorithm.startswith("RS") else ECAlgorithm
        jwk = kind.to_jwk(self.key.public_key(), as_dict=True) | {"kid": self.kid, "use": "sig"}
        return json.dumps({"keys": [jwk]}).encode()

    def token(self, *, headers=None, key=None, algorithm=None, **claims) -> str:
        """A token for tenant acme that may generate; ``claims`` replace what it says, None leaves a claim out."""
        now = int(time.time())
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": now + 600,
            "iat": now,
            "sub": "ann",
            "tenant": "acme",
            "scope": "generate openid",
        } | claims
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key or self.key, algorithm or self._algorithm, headers or {"kid": self.kid})

    @contextmanager
    def serving(self):
        """The URL at which the document is had."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                content = issuer.document()
                self.send_response(302 if self.path == "/moved" else 200)
                self.send_header("Location", "/jwks.json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def identity_table(place, **changes):
    """[identity] for tokens of a ``TokenIssuer``."""
    return {"jwks": str(place), "issuer": ISSUER, "audience": AUDIENCE} | changes
