"""JSON web tokens: signature, issuer, audience, time; and from claims to a caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jwt

from hope_serve.errors import InvalidRequest, Unauthenticated
from hope_serve.identity.caller import Caller, Scope
from hope_serve.identity.config import IdentityConfig
from hope_serve.identity.jwks import Jwk

_SCOPES = {scope.value: scope for scope in Scope}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A caller, and when the token that says so expires, in Unix seconds."""

    caller: Caller
    expires_at: float


def key_id(token: str) -> str | None:
    """Which key a token says to be signed with, unverified. Raises Unauthenticated."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError as error:
        raise _refused("it is no token", "TOKEN_MALFORMED") from error
    return kid if kid is None else str(kid)


def verify(token: str, key: Jwk, config: IdentityConfig) -> Verified:
    """What a token says, once its signature and every claim hold.

    Raises:
        Unauthenticated: naming what does not hold, and nothing that the token says.
    """
    claims = _claims(token, key, config)
    tenant = claims.get(config.tenant_claim)
    if not isinstance(tenant, str):
        raise _refused(f"its claim {config.tenant_claim} names no tenant", "TOKEN_CLAIMS")
    try:
        caller = Caller(
            tenant=tenant,
            scopes=_scopes(claims.get(config.scope_claim)),
            user=claims["sub"] if config.subject_is_user else "",
            name="token",
        )
    except (ValueError, InvalidRequest) as error:
        raise _refused("its tenant or subject is no name that is allowed here", "TOKEN_CLAIMS") from error
    return Verified(caller=caller, expires_at=float(claims["exp"]))


def _claims(token: str, key: Jwk, config: IdentityConfig) -> dict[str, Any]:
    required = ["exp", "iss", "aud", *(["sub"] if config.subject_is_user else [])]
    try:
        algorithm = jwt.get_unverified_header(token)["alg"]
        if algorithm not in config.algorithms or key.get("alg", algorithm) != algorithm:
            raise _refused("it is signed with an algorithm that is not allowed", "TOKEN_ALGORITHM")
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK(dict(key), algorithm=algorithm),
            algorithms=list(config.algorithms),
            issuer=config.issuer,
            audience=config.audience,
            leeway=config.leeway_seconds,
            options={"require": required},
        )
    except jwt.ExpiredSignatureError as error:
        raise _refused("it has expired", "TOKEN_EXPIRED") from error
    except (jwt.InvalidIssuerError, jwt.InvalidAudienceError) as error:
        raise _refused("it was issued by or for somebody else", "TOKEN_FOREIGN") from error
    except (jwt.InvalidTokenError, jwt.PyJWKError, jwt.InvalidKeyError, KeyError) as error:
        raise _refused("its signature or its claims do not hold", "TOKEN_INVALID") from error
    if config.subject_is_user and not claims["sub"]:
        raise _refused("its subject is empty", "TOKEN_CLAIMS")  # "" would mean any user
    return claims


def _scopes(claim: object) -> frozenset[Scope]:
    """Those that we know; a token may carry others' scopes too."""
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(_SCOPES[name] for name in names if isinstance(name, str) and name in _SCOPES)


def _refused(what: str, reason: str) -> Unauthenticated:
    return Unauthenticated(f"the token is refused: {what}; ask its issuer for another", reason=reason)
