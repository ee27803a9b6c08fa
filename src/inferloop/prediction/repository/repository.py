"""A directory of models as a Catalog: read once, followed, or changed by requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from inferloop.core.bundle import Bundle
from inferloop.core.errors import NotFound, Unsupported
from inferloop.core.target import Target
from inferloop.prediction.catalog import NO_OVERRIDE, Catalog, Override
from inferloop.prediction.limits import Limits
from inferloop.prediction.plan import Plan, Reference
from inferloop.prediction.repository.control import Control
from inferloop.prediction.repository.folder import ModelFolder, list_models, read_folder
from inferloop.prediction.repository.paths import check_model_name
from inferloop.prediction.repository.stored import Stored, read_stored
from inferloop.prediction.repository.uploads import Uploads
from inferloop.prediction.settings import PLAIN, ModelSettings

log = logging.getLogger(__name__)


class Repository(Catalog):
    """The models of one directory. See `Catalog` for the threads.

    Args:
        root: the directory; nothing that its links lead to outside of it is read.
        control: `none` opens what is there at the start; `poll` also follows what is added, changed and removed, each once
            its files have been the same for one interval; `explicit` opens what is asked for.
        poll_s: how often `poll` looks.
        limits, target: for what a model's configuration does not say.

    Raises:
        NotFound: there is no such directory.
        StorageError: it cannot be read.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        control: Control = Control.NONE,
        poll_s: float = 1.0,
        limits: Limits | None = None,
        target: Target | None = None,
    ) -> None:
        self._root = Path(root).resolve()
        if not self._root.is_dir():
            raise NotFound(f"no model repository at {root}", hint="it is a directory with one folder for each model")
        self._control = control
        self._poll_s = poll_s
        self._limits = limits or Limits()
        self._target = target or Target()
        self._stored: dict[str, Stored] = {}
        self._changing: dict[str, str] = {}
        self._uploads = Uploads()
        self._before: dict[str, Stored | None] = {}
        self._generation = 0
        for folder in list_models(self._root).values():
            self._adopt(folder.name, folder)
        self._look_at = time.monotonic() + poll_s

    def find(self, text: str, *, by_name: bool = False) -> Reference | None:  # noqa: ARG002  # it is never a path here
        """See `Catalog.find`; a bare name only."""
        if text not in self._stored and self._control is Control.EXPLICIT:
            self._refresh(text)
        if text not in self._stored:
            return None
        return Reference(text, text, place=str(self._root / text))

    def plan(self, reference: Reference) -> Plan:
        """See `Catalog.plan`."""
        return self._of(reference.name).plan()

    def bundle(self, reference: Reference, version: int) -> Bundle:
        """See `Catalog.bundle`."""
        return self._of(reference.name).bundle(version)

    def settings(self, name: str) -> ModelSettings:
        """See `Catalog.settings`."""
        stored = self._stored.get(name)
        return PLAIN if stored is None else stored.declared.settings

    def generation(self) -> int:
        """See `Catalog.generation`; looks at the directory at most every `poll_s` seconds."""
        if self._control is Control.POLL and time.monotonic() >= self._look_at:
            self._look()
            self._look_at = time.monotonic() + self._poll_s
        return self._generation

    def wanted(self) -> Sequence[str]:
        """See `Catalog.wanted`."""
        if self._control is Control.EXPLICIT:
            return ()
        stored = self._stored
        ordered: dict[str, None] = {}

        def place(name: str, parents: tuple[str, ...]) -> None:
            if name in stored and name not in ordered and name not in parents:
                for step in stored[name].declared.settings.ensemble:
                    place(step.model, (*parents, name))
                ordered[name] = None

        for name in stored:
            place(name, ())
        return tuple(ordered)

    def known(self) -> Mapping[str, Sequence[int]]:
        """See `Catalog.known`."""
        return {name: stored.versions for name, stored in self._stored.items()}

    def request(self, name: str, override: Override) -> bool:
        """See `Catalog.request`."""
        if self._control is not Control.EXPLICIT:
            return self._refuse(name)
        check_model_name(name)
        if not override.files and not (self._root / name).is_dir():
            return False
        before = self._stored.get(name)
        if override.files:
            root = self._uploads.put(name, override.files)
            self._adopt(name, read_folder(root, name, root / name), override)
        else:
            self._uploads.leave(name)
            self._refresh(name, override)
        self._before[name] = before
        return name in self._stored

    def settle(self, name: str, *, granted: bool) -> bool:
        """See `Catalog.settle`; a model that was not there before stands as in the directory, if it is there."""
        self._uploads.settle(name, granted=granted)
        if name not in self._before:
            return False
        before = self._before.pop(name)
        if granted:
            return False
        if before is None:
            self._refresh(name)
        else:
            self._store(name, before)
        return True

    def release(self, name: str) -> None:
        """See `Catalog.release`."""
        if self._control is not Control.EXPLICIT:
            self._refuse(name)
            return
        self._uploads.drop(name)
        self._before.pop(name, None)
        if name in self._stored:
            self._refresh(name)

    def close(self) -> None:
        """Remove what was uploaded. A second call does nothing."""
        self._uploads.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _of(self, name: str) -> Stored:
        stored = self._stored.get(name)
        if stored is None:
            raise NotFound(f"model {name!r} is no longer in {self._root}")
        return stored

    def _refuse(self, name: str) -> bool:
        if name in self._stored:
            raise Unsupported(
                f"model {name!r} is not loaded and unloaded by requests: model control is {self._control.value!r}",
                hint="start the server with --model-control explicit",
            )
        return False

    def _look(self) -> None:
        """Adopt what has changed since the last look but one, and no more since the last."""
        folders = list_models(self._root)
        for name in [*folders, *(name for name in self._stored if name not in folders)]:
            folder, stored = folders.get(name), self._stored.get(name)
            now = folder.stamp if folder is not None else ""
            before = stored.folder.stamp if stored is not None else ""
            if now == before and (folder is None) == (stored is None):
                self._changing.pop(name, None)
            elif self._changing.get(name) == now:
                del self._changing[name]
                self._adopt(name, folder)
            else:
                self._changing[name] = now

    def _refresh(self, name: str, override: Override = NO_OVERRIDE) -> None:
        """Look at one model now."""
        folder = list_models(self._root).get(name)
        if folder is not None or name in self._stored:
            self._adopt(name, folder, override)

    def _adopt(self, name: str, folder: ModelFolder | None, override: Override = NO_OVERRIDE) -> None:
        found: Stored | None = None
        if folder is not None:
            folder = _marked(folder, override.config)
            found = read_stored(folder, limits=self._limits, target=self._target, config=override.config)
            if found.problem is not None:
                log.error("model cannot be served", extra={"model": name, "error": str(found.problem)})
        self._store(name, found)

    def _store(self, name: str, found: Stored | None) -> None:
        stored = {key: value for key, value in self._stored.items() if key != name}
        if found is not None:
            stored[name] = found
        self._stored = dict(sorted(stored.items()))  # replaced as a whole: the event loop reads it
        self._generation += 1


def _marked(folder: ModelFolder, config: str) -> ModelFolder:
    """The same files with another configuration are another version of the model's."""
    if not config:
        return folder
    return replace(folder, stamp=folder.stamp + config, stamps={key: stamp + config for key, stamp in folder.stamps.items()})
