"""The recipe's shards in the order of their registration, kept in the store: of two duplicates the one in the earlier shard stays.

Each registration is a small file with its keys, numbered; a number is taken by whoever creates its file.
"""

import json
from collections.abc import Iterable

from instpt_assets.store.manifest import canonical_json
from instpt_assets.store.outages import says_no_bucket
from instpt_assets.store.store import Store, StoreError


def registered_shards(store: Store, recipe: str) -> list[str]:
    """Keys of the recipe's shards in the order of registration.

    Raises:
        StoreError: the store lies in a bucket that does not exist.
    """
    return _keys(store, _registrations(store, recipe))


def register_shards(store: Store, recipe: str, keys: Iterable[str]) -> list[str]:
    """Append the keys that are not registered yet; returns those. Safe beside other writers.

    Raises:
        StoreError: the store lies in a bucket that does not exist.
    """
    wanted = list(keys)
    while True:
        # Number and known keys come from one listing: whoever registers in between takes the number, and this one looks again.
        registrations = _registrations(store, recipe)
        known = set(_keys(store, registrations))
        new = [key for key in wanted if key not in known]
        if not new:
            return []
        last = int(registrations[-1].rsplit("/", 1)[-1].removesuffix(".json")) if registrations else -1
        if store.create_text(store.path("_registered", recipe, f"{last + 1:08d}.json"), canonical_json(new)):
            return new


def _keys(store: Store, registrations: Iterable[str]) -> list[str]:
    def read(path: str) -> list[str]:
        text = store.read_text(path)
        assert text is not None, "a registration is never removed"
        return list(json.loads(text))

    return [key for keys in store.each(read, registrations) for key in keys]


def _registrations(store: Store, recipe: str) -> list[str]:
    try:
        listed = store.fs.ls(store.path("_registered", recipe), detail=False, refresh=True)
    except FileNotFoundError as error:
        if says_no_bucket(error):
            raise StoreError("the bucket does not exist: create it, or name another one") from error
        return []
    return sorted(path for path in listed if path.endswith(".json"))
