"""Who may call which operation over REST."""

from __future__ import annotations

from collections.abc import Mapping

from inferloop.serving.keys import Keys
from inferloop.serving.scopes import Need, of_operation

_HEADER = b"authorization"


class Access:
    """The keys of a server, asked by the name of an operation. Event loop only."""

    __slots__ = ("_keys", "_needs")

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._needs: dict[tuple[str, str], Need] = {}
        if keys.open_metrics:
            self._needs |= {("metrics", method): Need.OPEN for method in ("GET", "HEAD")}

    def check(self, operation: str, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass.

        Raises:
            Unauthorized: no key was sent, or one that is not known.
            Forbidden: the key lacks the scope.
        """
        need = self._needs.get((operation, method))
        if need is None:
            need = self._needs[operation, method] = of_operation(operation, method)
        self._keys.require(need, headers.get(_HEADER))
