"""Whose memory is whose: listing, hostile ids, and what a store gives away."""

import pytest
from support.store_memories import (
    MODEL,
    small,
    step,
    write_versions,
)

from hope_serve.api import Owner, Source
from hope_serve.errors import InvalidRequest
from hope_serve.memory.snapshot import Snapshot


async def test_owners_are_listed_by_tenant_page_by_page(store):
    names = {f"user-{i}" for i in range(7)}
    for name in names:
        await write_versions(store, Owner(tenant="acme", user=name), 1)
    await write_versions(store, Owner(tenant="other", user="stranger"), 1)
    await store.erase(Owner(tenant="acme", user="user-3"))
    seen, token = [], ""
    while True:
        page, token = await store.list_owners("acme", page_size=3, page_token=token)
        seen += [summary.user for summary in page]
        if not token:
            break
    assert sorted(seen) == sorted(names - {"user-3"})
    assert [summary.user for summary in (await store.list_owners("other"))[0]] == ["stranger"]


HOSTILE = [
    "}{",
    "{u}",
    "a\0b",
    "../../etc/passwd",
    "*",
    "' OR 1=1 --",
    "\r\nFLUSHALL\r\n",
    "аlice",  # noqa: RUF001 the first letter is Cyrillic
    "alice ",
    "ALICE",
    "é",
    "e\u0301",
    "\u202eecila",
    "ali\u200dce",
    "ali\u200cce",
    "x" * 256,
    "alice",
]


def accepted(tenant, user):
    try:
        return Owner(tenant=tenant, user=user)
    except InvalidRequest:
        return None


@pytest.mark.parametrize(
    "name", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "👩\u200d👩\u200d👧\u200d👦", "क्\u200dष", "🏳️\u200d🌈"]
)
def test_joiners_that_people_write_their_names_with_are_allowed(name):
    assert accepted("t", name)


@pytest.mark.parametrize(
    "name",
    ["\u200d", "\u200c\u200d", *(f"a{odd}b" for odd in "\u202e\u2066\u200b\u200e\ufeff\xad\x7f\u2028")],
)
def test_what_nobody_can_see_and_what_turns_text_around_is_not(name):
    with pytest.raises(InvalidRequest, match="unprintable"):
        Owner(tenant="t", user=name)


async def test_hostile_user_ids_are_isolated_from_each_other(storage, store):
    owners = [owner for name in HOSTILE for tenant in ("acme", "acme\0a") if (owner := accepted(tenant, name))]
    assert len(owners) > len(HOSTILE)
    for number, owner in enumerate(owners):
        await store.commit(owner, step(0, small(number)))
    for number, owner in enumerate(owners):
        assert (await store.load(owner, fingerprint=MODEL)).snapshot.counters["tokens_learned"] == number
    listed = (await store.list_owners("acme", page_size=1000))[0]
    assert sorted(summary.user for summary in listed) == sorted(o.user for o in owners if o.tenant == "acme")


def _unchecked(user):
    """An owner as a caller without the check of ``Owner`` would name it."""
    owner = Owner(tenant="acme", user="a")
    object.__setattr__(owner, "user", user)
    return owner


@pytest.mark.parametrize("user", ["", "x" * 65536, "\ud800"])
async def test_user_ids_that_cannot_be_kept_are_refused(store, user):
    with pytest.raises(InvalidRequest, match="user_id"):
        await store.commit(_unchecked(user), step(0, small(1)))


async def test_two_ids_never_share_a_key(store):
    owners = [Owner(tenant=t, user=u) for t in ("a", "ab", "a\0", "a\0b", "") for u in ("b", "bb", "ab", "0b") if t]
    indexes = {store._owners.binding(owner).index for owner in owners}
    assert len(indexes) == len(owners)
    assert all(len(index) == 32 and set(index) <= set("0123456789abcdef") for index in indexes)


async def test_user_and_request_ids_never_appear_in_an_encrypted_store(storage):
    if storage.keys is None:
        pytest.skip("names are readable without a key")
    store = await storage.store()
    owner = Owner(tenant="tenant-in-plain-sight", user="user-in-plain-sight")
    given = Snapshot(fingerprint=MODEL, schema=1, tensors={}, counters={"note": "counter-in-plain-sight"})
    await store.commit(
        owner, step(0, given, request_id="request-in-plain-sight", source=Source(uri="uri-in-plain-sight"))
    )
    assert b"in-plain-sight" not in await storage.everything()
