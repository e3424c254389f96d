"""Sealed folders at a URL: their files first, the record that seals them last.

`<url>/<name>/sha256.json` names the folder beside it that holds the files (`<url>/<name>/<nonce>/…`, each writer's its own) and their
SHA-256. Uploads run in a thread, so that the work itself does not wait for them.
"""

import json
import logging
import shutil
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from instpt_assets.store.sealed import RECORD, digests, release, seal, write_aside
from instpt_assets.store.store import Store

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 60.0
"""After an upload that failed; its requests have been tried for half a minute by then (`outages`)."""


class Mirror:
    """The sealed folders of a local folder, at a URL too.

    An upload that fails is logged and tried again, so that an outage costs nothing but time; in order, for a state is of no use elsewhere
    without the checkpoints before it. What the last try, at `close`, cannot upload is given up: the local folder is whole.

    Args:
        url: where.
        folder: the local folder.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._store, self._folder = Store(url), folder
        self._waiting: dict[str, tuple[Path, str | None]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def names(self) -> list[str]:
        """Names of what is sealed there."""
        self._store.fs.invalidate_cache()
        records = self._store.fs.glob(f"{self._store.root}/*/{RECORD}")
        return [path.rsplit("/", 2)[-2] for path in records]

    def fetch(self, name: str) -> bool:
        """Download a folder and seal it here; False if there is none, or its bytes are not those of its record."""
        text = self._store.read_text(self._store.path(name, RECORD))
        if text is None:
            return False
        record = json.loads(text)
        aside = write_aside(self._folder)
        try:
            for file in record["files"]:
                (aside / file).parent.mkdir(parents=True, exist_ok=True)
                self._store.fs.get_file(self._store.path(name, record["folder"], file), str(aside / file))
            if digests(aside) != record["files"]:
                _LOG.warning("%s has other content than was written: not used", self._store.url_of(self._store.path(name)))
                return False
            seal(aside, self._folder / name)
            return True
        except FileNotFoundError:  # another run replaced it
            return False
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def put(self, name: str, replacing: str | None = None) -> None:
        """Upload a folder in the background, unless the same is there; not after `close`.

        Args:
            name: of the folder.
            replacing: names that begin so and come before `name` are not uploaded if they still wait, and are removed when it is there.
        """
        if self._closing:
            return
        aside = write_aside(self._folder)
        snapshot = aside / name  # its files stay though the folder is removed meanwhile
        shutil.copyfile(self._folder / name / RECORD, aside / RECORD)
        release(self._folder / name, snapshot)
        with self._changed:
            for waiting in list(self._waiting):
                if waiting == name or _is_replaced(waiting, name, replacing):
                    dropped, before = self._waiting.pop(waiting)
                    shutil.rmtree(dropped.parent, ignore_errors=True)
                    replacing = replacing or before
            self._waiting[name] = (snapshot, replacing)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Wait for the uploads."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                name, (snapshot, replacing) = next(iter(self._waiting.items()))
                del self._waiting[name]
                is_last_try = self._closing
            try:
                self._upload(name, snapshot, replacing)
            except Exception:
                _LOG.warning("%s was not copied to %s", self._folder / name, self._store.url, exc_info=True)
                if not is_last_try and self._still_wanted(name, snapshot, replacing):
                    continue
            shutil.rmtree(snapshot.parent, ignore_errors=True)

    def _still_wanted(self, name: str, snapshot: Path, replacing: str | None) -> bool:
        """Let what was not uploaded wait in the first place again, unless something newer has come, and pause."""
        with self._changed:
            if any(name == newer or _is_replaced(name, newer, prefix) for newer, (_, prefix) in self._waiting.items()):
                return False
            self._waiting = {name: (snapshot, replacing), **self._waiting}
            self._changed.wait_for(lambda: self._closing, _RETRY_SECONDS)
            return True

    def _upload(self, name: str, snapshot: Path, replacing: str | None) -> None:
        record, nonce = self._store.path(name, RECORD), uuid.uuid4().hex[:12]
        files = json.loads((snapshot.parent / RECORD).read_text(encoding="utf-8"))
        before = json.loads(self._store.read_text(record) or "{}")
        gone = [self._store.path(older) for older in self.names() if _is_replaced(older, name, replacing)]
        if before.get("files") != files:
            for file in files:
                target = self._store.path(name, nonce, file)
                if self._store.is_local:
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                self._store.fs.put_file(str(snapshot / file), target)
            self._store.write_text(record, json.dumps({"folder": nonce, "files": files}))
            gone += [self._store.path(name, before["folder"])] if before else []
        for folder in gone:
            with suppress(FileNotFoundError):
                self._store.fs.rm(folder, recursive=True)


def _is_replaced(older: str, name: str, replacing: str | None) -> bool:
    return replacing is not None and older.startswith(replacing) and older < name
