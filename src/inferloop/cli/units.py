"""Durations and sizes as options: `30s`, `64MB`; a wrong one is told with the option's name."""

from __future__ import annotations

import click


class DurationType(click.ParamType):  # type: ignore[type-arg]  # older clicks have no arguments there
    """Seconds of `5ms`, `30s`, `1h30m`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`."""
        from inferloop.core.errors import InvalidInput
        from inferloop.data.units import duration_s

        try:
            return duration_s(value)
        except InvalidInput as error:
            self.fail(error.message, param, ctx)


class SizeType(click.ParamType):  # type: ignore[type-arg]  # older clicks have no arguments there
    """Bytes of `512KB`, `2GB`."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType.convert`."""
        from inferloop.core.errors import InvalidInput
        from inferloop.data.units import size_bytes

        try:
            return size_bytes(value)
        except InvalidInput as error:
            self.fail(error.message, param, ctx)
