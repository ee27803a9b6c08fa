"""Versions of Bundles under `INFERLOOP_HOME`, and the aliases that say which of them is live.

registry.db          versions, aliases, history, desired state; what it says is true
bundles/NAME/3/      the Bundle's files: complete before the database names them, immutable after
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from inferloop.core.bundle import Bundle
from inferloop.core.errors import Conflict, InferloopError, InvalidBundle, InvalidInput, NotFound, StorageError
from inferloop.core.home import home
from inferloop.data.database import Database
from inferloop.registry import tables
from inferloop.registry.files import highest_number, sync_tree
from inferloop.registry.history import champions
from inferloop.registry.records import Canary, Check, Desired, ModelInfo, Move, Rollback, VersionInfo
from inferloop.registry.ref import CHAMPION, ModelRef, check_alias, check_name

__all__ = ["Canary", "Check", "Desired", "ModelInfo", "Move", "Registry", "Rollback", "VersionInfo"]

_CUT_OFF = "its registration was cut off, or is still going on"


class Registry:
    """One registry directory. Any thread, any number of processes; every change is one transaction."""

    def __init__(self, path: Path | str | None = None) -> None:
        """Open the registry at `path`, by default `registry` under `INFERLOOP_HOME`; make it if it is not there.

        Raises:
            NewerSchema: written by a newer inferloop.
            StorageError: the directory cannot be made, or the database is damaged, locked or no registry.
        """
        self.path = Path(path) if path is not None else home() / "registry"
        try:
            (self.path / "bundles").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the registry at {self.path}: {error.strerror}") from error
        self._database = Database(self.path / "registry.db", tables.SCHEMA)

    def register(self, bundle: Bundle, *, alias: str | None = None, owner: str = "", name: str | None = None) -> Bundle:
        """Copy a Bundle in as the next version of its model.

        Args:
            bundle: stays as it is.
            alias: points at the new version as soon as all files are on disk.
            owner: who answers for it; by default as the Bundle says.
            name: registers it under another name.

        Returns:
            The registered Bundle.

        Raises:
            InvalidInput: a name or alias with characters that are not allowed.
            StorageError: the disk is full; nothing is registered, no alias moved.
        """
        model = name or bundle.name
        check_name(model)
        if alias is not None:
            check_alias(alias)
        owner = owner or bundle.manifest.owner
        now = time.time()
        with self._database.write() as connection:
            taken = highest_number(self.path / "bundles" / model)
            version = tables.reserve(connection, model, above=taken, owner=owner, now=now)
        try:
            stored = bundle.copy(self._place(model, version), name=model, version=version, owner=owner)
            size_bytes = sync_tree(stored.path)
        except BaseException:
            self._give_up(model, version)
            raise
        self._complete(stored, alias=alias, owner=owner, size_bytes=size_bytes)
        return stored

    def resolve(self, ref: str | Path) -> Bundle:
        """The Bundle that a reference means: `name@alias`, `name:version`, `name` (champion, else the latest), or a path.

        Raises:
            NotFound: no such model, alias, version or path; the hint lists the known ones.
            InvalidInput: neither a reference nor a path.
            InvalidBundle: a file is missing or does not match its digest.
        """
        text = str(ref)
        if isinstance(ref, Path) or "/" in text or "\\" in text or text.startswith((".", "~")):
            return Bundle.load(os.path.expanduser(ref))  # noqa: PTH111 - leaves `~nobody` as it is, Path raises RuntimeError
        try:
            name, version = self.version_of(text)
        except (NotFound, InvalidInput):
            if text and Path(text).is_dir():
                return Bundle.load(text)
            raise
        return self._load(name, version)

    def version_of(self, ref: str) -> tuple[str, int]:
        """Model and version that a reference means now, without reading the Bundle; as cheap as a query.

        Raises:
            NotFound: no such model, alias or version; the hint lists the known ones.
            InvalidInput: not a reference.
        """
        wanted = ModelRef.parse(ref)
        read = self._database.read
        if wanted.version is not None:
            tables.check_version(read, wanted.name, wanted.version)
            return wanted.name, wanted.version
        tables.check_model(read, wanted.name)
        known = tables.aliases(read, wanted.name)
        version = known.get(wanted.alias or CHAMPION)
        if wanted.alias is None and version is None:
            version = tables.latest(read, wanted.name)
        if version is None:
            hint = f"known: {', '.join(known)}" if known else f"`inferloop promote {wanted.name}:VERSION` makes a champion"
            raise NotFound(f"model {wanted.name!r} has no alias {wanted.alias!r}", hint=hint)
        return wanted.name, version

    def models(self) -> list[ModelInfo]:
        """All models, by name."""
        read = self._database.read
        rows = read(
            """SELECT m.name, m.owner, m.created, count(*), max(v.version) FROM models m
               JOIN versions v ON v.model = m.name AND v.ready GROUP BY m.name ORDER BY m.name"""
        )
        return [
            ModelInfo(name, owner, created, count, latest, tables.aliases(read, name))
            for name, owner, created, count, latest in rows
        ]

    def versions(self, name: str) -> list[VersionInfo]:
        """All versions of a model, oldest first. Raises `NotFound` for an unknown model."""
        read = self._database.read
        tables.check_model(read, name)
        known = tables.aliases(read, name)
        rows = read(
            """SELECT model, version, digest, created, owner, size_bytes FROM versions
               WHERE model = ? AND ready ORDER BY version""",
            (name,),
        )
        pointing = {row[1]: tuple(alias for alias, version in known.items() if version == row[1]) for row in rows}
        return [
            VersionInfo(model, version, digest, created, owner, size_bytes, pointing[version])
            for model, version, digest, created, owner, size_bytes in rows
        ]

    def alias(self, name: str, alias: str) -> int | None:
        """The version that an alias points at; None if the model has no such alias. Raises `NotFound` for an unknown model."""
        tables.check_model(self._database.read, name)
        return tables.aliases(self._database.read, name).get(alias)

    def set_alias(self, name: str, alias: str, *, version: int | None, by: str) -> Move:
        """Point an alias at a version; None takes it away. `promote` does it for the champion.

        Raises:
            NotFound: no such model or version.
            InvalidInput: characters that are not allowed.
        """
        check_alias(alias)
        return self._move(name, alias, version, kind="alias", by=by)

    def promote(self, name: str, version: int, *, by: str, report_digest: str = "") -> Move:
        """Make `version` the champion; its canary or shadow phase ends in the same transaction.

        Raises:
            NotFound: no such model or version.
            InvalidBundle: its files are damaged, so that no server could load it; the champion stays.
        """
        tables.check_version(self._database.read, name, version)
        self._load(name, version)
        return self._move(name, CHAMPION, version, kind="promote", by=by, report_digest=report_digest)

    def rollback(self, name: str, *, by: str) -> Rollback:
        """Make the champion before the present one champion again; a second call goes one further back.

        Raises:
            NotFound: no such model, or it has no earlier champion.
            InvalidBundle: the files of the earlier champion are damaged; the present one stays.
        """
        with self._database.write() as connection:
            read = tables.reader(connection)
            tables.check_model(read, name)
            left = {row[0] for row in read("SELECT version FROM versions WHERE model = ? AND ready", (name,))}
            now, before = champions(tables.history(read, name), left)
            if now is None or before is None:
                raise NotFound(
                    f"model {name!r} has no earlier champion", hint=f"`inferloop models show {name}` lists its versions"
                )
            Bundle.load(self._place(name, before))
            tables.move(connection, Move(name, CHAMPION, now, before, "rollback", by, time.time()))
            tables.end_traffic(connection, name, before)
            tables.changed(connection)
        return Rollback(now, before)

    def history(self, name: str) -> list[Move]:
        """All alias moves of a model, oldest first; also of one that was removed."""
        return tables.history(self._database.read, name)

    def desired(self, name: str) -> Desired:
        """What servers of the model converge to. Raises `NotFound` for an unknown model."""
        tables.check_model(self._database.read, name)
        return tables.desired(self._database.read, name, CHAMPION)

    def set_canary(self, name: str, version: int | None, *, share: float = 0.0, by: str = "") -> None:
        """Give `version` a share of the keys; None ends it.

        Raises:
            NotFound: no such model or version.
            InvalidInput: a share that is not above 0 and below 1.
        """
        if version is not None and not 0 < share < 1:
            raise InvalidInput(f"canary share {share:g} of {name}:{version} is not above 0 and below 1", hint="e.g. 0.05 for 5 %")
        self._set_traffic(name, "canary", version, share=share, by=by)

    def set_shadow(self, name: str, version: int | None, *, by: str = "") -> None:
        """Let `version` see all traffic and answer none; None ends it. Raises `NotFound` for an unknown model or version."""
        self._set_traffic(name, "shadow", version, share=1.0, by=by)

    def generation(self) -> int:
        """A number that grows with every change by any process; cheap enough to poll."""
        return int(self._database.read("SELECT value FROM generation")[0][0])

    def verify(self, name: str) -> list[Check]:
        """Read every version of a model and compare all digests; a registration that was cut off is told too."""
        tables.check_model(self._database.read, name)
        rows = self._database.read("SELECT version, ready FROM versions WHERE model = ? ORDER BY version", (name,))
        return [Check(version, self._problem(name, version) if ready else _CUT_OFF) for version, ready in rows]

    def remove(self, name: str, version: int | None = None, *, by: str = "") -> None:
        """Remove a version, or with None the whole model with its aliases; the history stays.

        Raises:
            NotFound: no such model or version.
            Conflict: an alias, canary or shadow uses the version.
        """
        with self._database.write() as connection:
            read = tables.reader(connection)
            if version is None:
                tables.check_model(read, name)
                tables.remove_model(connection, name, by=by, now=time.time())
            else:
                tables.check_version(read, name, version)
                if used := tables.uses(read, name, version):
                    raise Conflict(f"{name}:{version} is in use by {', '.join(used)}", hint="promote another version first")
                connection.execute("DELETE FROM versions WHERE model = ? AND version = ?", (name, version))
            tables.changed(connection)
        place = self.path / "bundles" / name if version is None else self._place(name, version)
        shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """Close the database. A second call does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _place(self, name: str, version: int) -> Path:
        return self.path / "bundles" / name / str(version)

    def _load(self, name: str, version: int) -> Bundle:
        bundle = Bundle.load(self._place(name, version))
        found = self._database.read("SELECT digest FROM versions WHERE model = ? AND version = ?", (name, version))
        if found != [(bundle.manifest.digest,)]:
            raise InvalidBundle(f"{name}:{version} is not what was registered: its digest is {bundle.manifest.digest}")
        return bundle

    def _complete(self, bundle: Bundle, *, alias: str | None, owner: str, size_bytes: int) -> None:
        name, version = bundle.name, bundle.version
        with self._database.write() as connection:
            connection.execute(
                "UPDATE versions SET digest = ?, size_bytes = ?, ready = 1 WHERE model = ? AND version = ?",
                (bundle.manifest.digest, size_bytes, name, version),
            )
            if alias is not None:
                before = tables.aliases(tables.reader(connection), name).get(alias)
                tables.move(connection, Move(name, alias, before, version, "register", owner, time.time()))
            tables.changed(connection)

    def _give_up(self, name: str, version: int) -> None:
        shutil.rmtree(self._place(name, version), ignore_errors=True)
        with suppress(StorageError), self._database.write() as connection:
            tables.give_up(connection, name, version)

    def _move(self, name: str, alias: str, version: int | None, *, kind: str, by: str, report_digest: str = "") -> Move:
        with self._database.write() as connection:
            read = tables.reader(connection)
            if version is None:
                tables.check_model(read, name)
            else:
                tables.check_version(read, name, version)
            change = Move(name, alias, tables.aliases(read, name).get(alias), version, kind, by, time.time(), report_digest)
            if change.before == change.after:
                return change
            tables.move(connection, change)
            if alias == CHAMPION and version is not None:
                tables.end_traffic(connection, name, version)
            tables.changed(connection)
        return change

    def _set_traffic(self, name: str, role: str, version: int | None, *, share: float, by: str) -> None:
        with self._database.write() as connection:
            if version is None:
                tables.check_model(tables.reader(connection), name)
            else:
                tables.check_version(tables.reader(connection), name, version)
            tables.set_traffic(connection, name, role, version=version, share=share, by=by)
            tables.changed(connection)

    def _problem(self, name: str, version: int) -> str:
        try:
            self._load(name, version)
        except InferloopError as error:
            return error.message
        return ""
