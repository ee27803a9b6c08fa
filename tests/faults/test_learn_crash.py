"""A learner that is killed leaves the old version live, and the next one goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferloop.data.ledger.ledger import Ledger, ledger_path
from inferloop.learning.learn import learn
from inferloop.registry.registry import Registry
from support import world

SCRIPT = """
import os, signal, sys
from inferloop.data.ledger.ledger import Ledger, ledger_path
from inferloop.learning.learn import learn
from inferloop.registry.registry import Registry

class Killed(Registry):
    def {method}(self, *args, **options):
        {before}os.kill(os.getpid(), signal.SIGKILL)

with Killed() as registry, Ledger(ledger_path()) as ledger:
    learn("mood", registry=registry, ledger=ledger, promote=True)
"""

AFTER_FILES = {"method": "promote", "before": ""}
BEFORE_FILES = {"method": "register", "before": ""}
AFTER_REGISTER = {"method": "register", "before": "super().register(*args, **options); "}


@pytest.fixture
def home(inferloop_home, tmp_path):
    with Registry() as registry, Ledger(ledger_path()) as ledger:
        champion = registry.register(world.bundle(tmp_path / "mood"), alias="champion")
        x, y = world.draw("abroad", 500, seed=10)
        world.give_feedback(ledger, champion, x, truths=[world.LABELS[index] for index in y])
    return inferloop_home


def run_killed(place):
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(**place)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(("place", "versions"), [(BEFORE_FILES, [1]), (AFTER_REGISTER, [1, 2]), (AFTER_FILES, [1, 2])])
def test_a_crash_before_the_alias_moved_leaves_the_old_version(home, place, versions):
    run_killed(place)
    with Registry() as registry:
        assert registry.alias("mood", "champion") == 1
        assert [info.version for info in registry.versions("mood")] == versions
        assert not [check for check in registry.verify("mood") if check.problem]


def test_after_a_crash_the_next_run_promotes_the_same_challenger(home):
    run_killed(AFTER_FILES)
    with Registry() as registry, Ledger(ledger_path()) as ledger:
        result = learn("mood", registry=registry, ledger=ledger, promote=True)
        assert result.promoted
        assert registry.alias("mood", "champion") == result.challenger.version == 2
