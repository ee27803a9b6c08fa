"""The registry as a Catalog: aliases, canary and shadow say which versions answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from inferloop.core.bundle import Bundle
from inferloop.core.errors import InvalidInput
from inferloop.prediction.catalog import Catalog, Override
from inferloop.prediction.plan import Plan, Reference, find_bundle, plan
from inferloop.prediction.settings import PLAIN, ModelSettings
from inferloop.registry.ref import check_name
from inferloop.registry.registry import Registry

SettingsOf = Callable[[str], ModelSettings]


class RegisteredModels(Catalog):
    """The models of a registry, and Bundles by their path; what is open is what somebody opened."""

    def __init__(self, registry: Registry, settings: SettingsOf | None = None) -> None:
        self._registry = registry
        self._settings = settings
        self._known: dict[str, Sequence[int]] = {}
        self._seen = -1

    def find(self, text: str, *, by_name: bool = False) -> Reference | None:
        """See `Catalog.find`; never None: what is no model and no path raises."""
        return Reference.find(self._registry, text, paths=not by_name)

    def plan(self, reference: Reference) -> Plan:
        """See `Catalog.plan`."""
        return plan(self._registry, reference)

    def bundle(self, reference: Reference, version: int) -> Bundle:
        """See `Catalog.bundle`."""
        return find_bundle(self._registry, reference, version)

    def settings(self, name: str) -> ModelSettings:
        """See `Catalog.settings`."""
        return PLAIN if self._settings is None else self._settings(name)

    def generation(self) -> int:
        """See `Catalog.generation`."""
        found = self._registry.generation()
        if found != self._seen:
            self._known = {info.name: (info.latest,) for info in self._registry.models()}
            self._seen = found
        return found

    def wanted(self) -> None:
        """See `Catalog.wanted`."""

    def known(self) -> Mapping[str, Sequence[int]]:
        """See `Catalog.known`; the latest version only."""
        return self._known

    def request(self, name: str, override: Override) -> bool:
        """See `Catalog.request`."""
        check_name(name)
        if override.config or override.files:
            raise InvalidInput(
                f"model {name!r} comes from the registry", hint="configuration and files need `serve --repository`"
            )
        return True

    def settle(self, name: str, *, granted: bool) -> bool:  # noqa: ARG002  # a request changes nothing here
        """See `Catalog.settle`."""
        return False

    def release(self, name: str) -> None:
        """See `Catalog.release`."""
