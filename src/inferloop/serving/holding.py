"""How this server holds models, beside what each model's settings say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inferloop.core.errors import Unsupported
from inferloop.prediction.settings import Isolation, ModelSettings


@dataclass(frozen=True, slots=True)
class Holding:
    """What holds for every model of one server.

    Attributes:
        isolation: `process` gives every engine a process of its own, also where the model does not ask for it.
        workers: how many processes answer; state between requests needs one.
    """

    isolation: Isolation = Isolation.THREAD
    workers: int = 1

    def __call__(self, model: str, settings: ModelSettings) -> ModelSettings:
        """The settings to load a model with.

        Raises:
            Unsupported: the model keeps state between requests, and one of several workers would not see it.
        """
        if self.workers > 1 and settings.sequence is not None:
            raise Unsupported(
                f"model {model!r} keeps the state of sequences, which needs one worker, this server has {self.workers}",
                hint="serve it with --workers 1, beside this server",
            )
        if self.isolation is Isolation.PROCESS and settings.isolation is not Isolation.PROCESS:
            return replace(settings, isolation=Isolation.PROCESS)
        return settings
