"""Names in the store: keyed hashes in place of tenants, users, request ids and session ids."""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from hope_serve.api import Owner
from hope_serve.errors import CorruptMemory, InvalidRequest
from hope_serve.memory.backend import HeadRow
from hope_serve.memory.seal import FORMAT, Binding, SealBroken, Sealer, bind, derive

MAX_NAME_BYTES = 1024
_INDEX_CHARS = 32


class Index:
    """Turns names into keys of the store. No two names share one, and none can be read back without the secret.

    Args:
        secret: the store's own 32 bytes, made once when the store was.
        encrypts: whether the owner names kept for listings are unreadable.
    """

    def __init__(self, secret: bytes, *, encrypts: bool) -> None:
        self._index_key = derive(secret, "index")
        self._head_key = derive(secret, "head")
        self._receipt_key = derive(secret, "receipt")
        self._names = Sealer(derive(secret, "names"), encrypts=encrypts)

    def owner(self, owner: Owner) -> Binding:
        """The owner's binding, whose ``index`` is the u of every key. Raises InvalidRequest."""
        _check_name("tenant", owner.tenant)
        _check_name("user_id", owner.user)
        return Binding(tenant=owner.tenant, index=self._hash("owner", owner.tenant, owner.user))

    def tenant(self, tenant: str) -> str:
        """The tenant's own index."""
        return self._hash("tenant", tenant)

    def request(self, owner: Binding, request_id: str) -> str:
        """A request id of one owner."""
        return self._hash("request", owner.index, request_id)

    def session(self, owner: Binding, session_id: str) -> str:
        """A session id of one owner."""
        return self._hash("session", owner.index, session_id)

    def seal_name(self, owner: Owner) -> bytes:
        """The owner's name, for listings."""
        return self._names.seal(msgspec.json.encode((owner.tenant, owner.user)), _name_place(self.owner(owner).index))

    def open_name(self, sealed: bytes, index: str) -> Owner:
        """The name behind an index. Raises CorruptMemory."""
        try:
            name = self._names.open(sealed, _name_place(index))
        except SealBroken as error:
            raise CorruptMemory(f"the name kept for owner {index} failed its seal") from error
        tenant, user = msgspec.json.decode(name, type=tuple[str, str])
        return Owner(tenant=tenant, user=user)

    def seal_head(self, owner: Binding, head: HeadRow) -> bytes:
        """The seal over the small facts of an owner's record."""
        return hmac.new(self._head_key, _head_place(owner, head), hashlib.sha256).digest()

    def check_head(self, owner: Binding, head: HeadRow) -> HeadRow:
        """The head, once shown to be what was sealed. Raises CorruptMemory."""
        if head != HeadRow() and not hmac.compare_digest(head.seal, self.seal_head(owner, head)):
            raise CorruptMemory("the head of the memory failed its seal; only erasing the memory is left")
        return head

    def receipt(self, owner: Binding, version: int, erased_at: float) -> str:
        """The id of an erasure: whoever holds the secret can show that it was given for this owner and time."""
        message = bind("erased", owner.index, str(version), repr(erased_at))
        return hmac.new(self._receipt_key, message, hashlib.sha256).hexdigest()

    def _hash(self, *fields: str) -> str:
        return hmac.new(self._index_key, bind(*fields), hashlib.sha256).hexdigest()[:_INDEX_CHARS]


def _head_place(owner: Binding, head: HeadRow) -> bytes:
    facts = (str(head.version), head.mark, str(head.tomb), str(head.num_bytes), repr(head.updated_at))
    return bind(FORMAT, owner.index, *facts)


def _name_place(index: str) -> bytes:
    return bind(FORMAT, index, "name")


def _check_name(field: str, name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(field, f"{name[:32]!r} is not valid Unicode text; send UTF-8") from error
    if not 0 < size <= MAX_NAME_BYTES:
        raise InvalidRequest(field, f"{size} bytes is outside [1, {MAX_NAME_BYTES}]; choose a shorter, non-empty name")
