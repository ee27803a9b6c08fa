"""Log settings, by the words of Triton: on the logging of this process, and of the other workers where there are some."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from inferloop.core.errors import InvalidInput
from inferloop.serving.services import Services

Value = str | int | bool

PART = "log"
"""What the state is called that several workers share."""

_LOGGER = "inferloop"
_FLAGS = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
_FORMATS = ("default", "ISO8601")
_MOST = 9


class LogOperations:
    """Reads and changes what is logged. Event loop only; takes effect on this process at once.

    `log_verbose_level` of 1 and more logs what is for debugging. Each level can be switched off by itself.
    """

    def __init__(self, services: Services | None = None) -> None:
        """Set up; with services of several workers, the settings are those of all."""
        self._services = services

    def get(self) -> dict[str, Value]:
        """All settings."""
        if self._services is not None and self._services.settings is not None:
            self._services.settings.look()
        return _current()

    def update(self, patch: Mapping[str, object]) -> dict[str, Value]:
        """Change settings, all or none, and answer what holds then.

        Raises:
            InvalidInput: no such setting, not such a value, or one that only the command line may set.
        """
        known = self.get()
        for key, value in patch.items():
            _check(key, value, known)
        if self._services is not None and self._services.settings is not None:
            self._services.settings.change(PART, lambda before: {**(before or known), **patch})
        else:
            adopt({**known, **patch})
        return self.get()


def adopt(state: Mapping[str, object]) -> None:
    """Put settings into force in this process: a value for each."""
    _levels.off = frozenset(number for key, number in _FLAGS.items() if not state[key])
    _levels.verbose = int(str(state["log_verbose_level"]))
    _levels.format = str(state["log_format"])
    wanted = [number for number in _FLAGS.values() if number not in _levels.off]
    logging.getLogger(_LOGGER).setLevel(logging.DEBUG if _levels.verbose else min(wanted, default=logging.CRITICAL))
    for handler in logging.getLogger().handlers:
        for earlier in [each for each in handler.filters if isinstance(each, _Levels)]:
            handler.removeFilter(earlier)
        handler.addFilter(_levels)


def _current() -> dict[str, Value]:
    level = logging.getLogger(_LOGGER).getEffectiveLevel()
    on = {key: level <= number and number not in _levels.off for key, number in _FLAGS.items()}
    verbose = _levels.verbose or int(level <= logging.DEBUG)
    return {"log_file": "", **on, "log_verbose_level": verbose, "log_format": _levels.format}


class _Levels(logging.Filter):
    """Holds back the levels that are off, of our own loggers only."""

    def __init__(self) -> None:
        super().__init__()
        self.off: frozenset[int] = frozenset()
        self.verbose = 0
        self.format = _FORMATS[0]

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        return record.levelno not in self.off or record.name.partition(".")[0] != _LOGGER


_levels = _Levels()
"""One for the process, as its logging is."""


def _check(key: str, value: object, known: Mapping[str, Value]) -> None:
    if key not in known:
        raise InvalidInput(f"no log setting is named {key!r}", hint=f"known: {', '.join(known)}")
    if key in _FLAGS and not isinstance(value, bool):
        raise InvalidInput(f"{key} is true or false, got {value!r}")
    if key == "log_file" and value != known[key]:
        raise InvalidInput("log_file is set where the server is started", hint="redirect its stderr")
    if key == "log_verbose_level" and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST):
        raise InvalidInput(f"log_verbose_level is a whole number from 0 to {_MOST}, got {value!r}")
    if key == "log_format" and value != known[key]:
        raise InvalidInput(f"log_format stays {known[key]!r}", hint="start the server with `inferloop --log-format json`")
