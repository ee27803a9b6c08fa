"""The table of verbs: where each lives and what it says of itself, so that `--help` imports none of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """One word of the command line.

    Attributes:
        module: the module whose `command` is a click command or group.
        summary: the line in `inferloop --help`.
        log_level: what it logs unless the user says otherwise; verbs that run on and on tell more.
    """

    module: str
    summary: str
    log_level: str = "warning"


SECTIONS: dict[str, dict[str, Verb]] = {
    "start": {
        "init": Verb("inferloop.cli.init", "Write a small project that trains, streams and tests."),
        "demo": Verb("inferloop.cli.demo", "Run a whole story on real data: refunds, digits."),
        "doctor": Verb("inferloop.cli.doctor", "Check this machine and this installation."),
        "plugins": Verb("inferloop.cli.plugins", "List engines, codecs, sources, sinks and the rest."),
    },
    "make": {
        "train": Verb("inferloop.cli.train", "Train on a labeled data set; a bundle in the registry."),
    },
    "know": {
        "evaluate": Verb("inferloop.cli.evaluate", "Accuracy, calibration and latency on a data set, with gates."),
    },
    "run": {
        "predict": Verb("inferloop.cli.predict", "One-off predictions, from raw files to labels."),
        "serve": Verb("inferloop.cli.serve", "Serve models over REST, with metrics.", log_level="info"),
        "run": Verb("inferloop.cli.run", "Run a pipeline: sources, rules, sinks.", log_level="info"),
        "pipeline": Verb("inferloop.cli.pipeline", "Check or test a pipeline file."),
    },
    "learn": {
        "feedback": Verb("inferloop.cli.feedback", "Say what was right for a prediction."),
        "learn": Verb("inferloop.cli.learn", "Make a challenger from feedback and judge it."),
        "promote": Verb("inferloop.cli.promote", "Make a version the champion."),
        "rollback": Verb("inferloop.cli.rollback", "Go back to the champion before."),
    },
    "keep": {
        "models": Verb("inferloop.cli.models", "List, show, compare and verify registered models."),
        "keys": Verb("inferloop.cli.keys", "Make, list and revoke the API keys of a server."),
        "ledger": Verb("inferloop.cli.ledger", "Statistics, export and erasure of the ledger."),
    },
}

VERBS: dict[str, Verb] = {name: verb for verbs in SECTIONS.values() for name, verb in verbs.items()}
