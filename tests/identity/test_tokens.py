"""Tokens of a real issuer: what is taken, what is refused, and how changed keys are followed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time

import pytest
from support.token_issuer import AUDIENCE, ISSUER, TokenIssuer, identity_table

from hope_serve.errors import Unauthenticated
from hope_serve.identity import Scope
from hope_serve.identity.authenticator import RETRY_SECONDS, Authenticator
from hope_serve.identity.config import IdentityConfig
from hope_serve.section import ConfigError


@pytest.fixture(params=["ES256", "RS256"])
def issuer(request):
    return TokenIssuer(request.param)


@pytest.fixture
def file(issuer, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.document())
    return path


def authenticator(place, clock=time.time, **changes):
    return Authenticator(IdentityConfig(**identity_table(place, **changes)), clock=clock)


async def test_a_token_says_tenant_and_scopes_and_others_scopes_are_left_out(issuer, file):
    caller = await authenticator(file).caller(issuer.token(scope="generate memory:read openid"))
    assert (caller.tenant, caller.user) == ("acme", "")
    assert caller.scopes == {Scope.GENERATE, Scope.MEMORY_READ}
    caller = await authenticator(file, scope_claim="scp").caller(issuer.token(scp=["adapt", "root", 3]))
    assert caller.scopes == {Scope.ADAPT}


async def test_the_subject_may_be_the_only_user(issuer, file):
    assert (await authenticator(file, subject_is_user=True).caller(issuer.token(sub="ann"))).user == "ann"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(time.time()) - 3600}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_INVALID"),
        ({"nbf": int(time.time()) + 3600}, "TOKEN_INVALID"),
        ({"iss": "https://elsewhere.example"}, "TOKEN_FOREIGN"),
        ({"iss": None}, "TOKEN_INVALID"),
        ({"aud": "another"}, "TOKEN_FOREIGN"),
        ({"aud": None}, "TOKEN_INVALID"),
        ({"tenant": None}, "TOKEN_CLAIMS"),
        ({"tenant": ["acme"]}, "TOKEN_CLAIMS"),
        ({"tenant": "ac me"}, "TOKEN_CLAIMS"),
        ({"sub": None}, "TOKEN_INVALID"),
        ({"sub": ""}, "TOKEN_CLAIMS"),
        ({"sub": "a\nb"}, "TOKEN_CLAIMS"),
    ],
)
async def test_a_token_that_says_something_else_is_refused(issuer, file, claims, reason):
    with pytest.raises(Unauthenticated) as refused:
        await authenticator(file, subject_is_user=True).caller(issuer.token(**claims))
    assert refused.value.reason == reason
    assert "acme" not in str(refused.value)
    assert "elsewhere" not in str(refused.value)


async def test_a_token_that_somebody_else_signed_is_refused(issuer, file):
    stranger = TokenIssuer()
    for token in (
        stranger.token(algorithm="ES256"),  # the right key's name, the wrong key
        issuer.token()[:-4] + "AAAA",
        issuer.token().replace(".", ".e", 1),
        "x.y.z",
        "Bearer",
        "\udc80",
    ):
        with pytest.raises(Unauthenticated):
            await authenticator(file).caller(token)


async def test_a_token_without_a_signature_is_refused(issuer, file):
    claims = issuer.token().split(".")[1]
    header = _encoded(json.dumps({"alg": "none", "kid": issuer.kid}).encode())
    for token in (f"{header}.{claims}.", f"{header}.{claims}"):
        with pytest.raises(Unauthenticated):
            await authenticator(file).caller(token)


async def test_the_public_key_is_no_shared_secret(issuer, file):
    """The old trick: HS256 with the published key as its secret."""
    header = {"alg": "HS256", "kid": issuer.kid, "typ": "JWT"}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, "tenant": "acme", "scope": "admin"}
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    secret = json.dumps(json.loads(issuer.document())["keys"][0]).encode()
    token = f"{signed}.{_encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
    with pytest.raises(Unauthenticated) as refused:
        await authenticator(file).caller(token)
    assert refused.value.reason == "TOKEN_ALGORITHM"


async def test_an_algorithm_that_is_not_allowed_is_refused(issuer, file):
    with pytest.raises(Unauthenticated) as refused:
        await authenticator(file, algorithms=["EdDSA"]).caller(issuer.token())
    assert refused.value.reason == "TOKEN_ALGORITHM"


async def test_a_token_that_was_seen_before_expires_all_the_same(issuer, file):
    now = [time.time()]
    known = authenticator(file, clock=lambda: now[0], leeway_seconds=0.0)
    token = issuer.token()
    await known.caller(token)
    now[0] += 601
    with pytest.raises(Unauthenticated) as refused:
        await known.caller(token)
    assert refused.value.reason == "TOKEN_EXPIRED"


async def test_a_key_that_left_the_file_verifies_nothing_not_even_what_it_did_before(issuer, file):
    known = authenticator(file)
    before = issuer.token()
    await known.caller(before)
    issuer.rotate()
    file.write_bytes(issuer.document())
    assert known.load()
    await known.caller(issuer.token())
    with pytest.raises(Unauthenticated) as refused:
        await known.caller(before)
    assert refused.value.reason == "TOKEN_KEY_UNKNOWN"


async def test_keys_of_a_url_are_followed_when_a_token_names_a_new_one(issuer, monkeypatch):
    with issuer.serving() as url:
        known = authenticator(url)
        await known.caller(issuer.token())
        issuer.rotate()
        token = issuer.token()
        with pytest.raises(Unauthenticated):  # it was asked a moment ago
            await known.caller(token)
        monkeypatch.setattr("hope_serve.identity.authenticator.RETRY_SECONDS", 0.0)
        await known.caller(token)
        assert issuer.asked == 2


async def test_keys_are_not_fetched_from_where_an_answer_points_to(issuer):
    with issuer.serving() as url, pytest.raises(ConfigError, match="302"):
        authenticator(url.replace("jwks.json", "moved"))
    assert issuer.asked == 1


async def test_guessed_key_names_do_not_become_requests(issuer):
    assert RETRY_SECONDS >= 10
    with issuer.serving() as url:
        known = authenticator(url)
        for number in range(50):
            with pytest.raises(Unauthenticated):
                await known.caller(issuer.token(headers={"kid": f"guess{number}"}))
        assert issuer.asked == 1


async def test_an_issuer_that_is_away_leaves_the_keys_as_they_were(issuer):
    with issuer.serving() as url:
        known = authenticator(url, jwks_seconds=0.05)
    await asyncio.sleep(0.06)
    with pytest.raises(ConfigError, match="jwks"):
        known.load()
    await known.caller(issuer.token())


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', b"[1]"])
def test_a_document_without_keys_that_verify_is_refused_at_the_start(tmp_path, content):
    path = tmp_path / "jwks.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"jwks\.json"):
        authenticator(path)


async def test_a_credential_of_absurd_length_is_not_looked_at(file):
    with pytest.raises(Unauthenticated) as refused:
        await authenticator(file).caller("x" * 100_000)
    assert refused.value.reason == "CREDENTIAL_MISSING"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
