"""The loop: what it learns, what it keeps, and that an interruption changes no bit."""

import math
import os
import signal

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'inferloop[train]'")

from inferloop.core.errors import Cancelled, InvalidInput, NewerSchema, StorageError  # noqa: E402
from inferloop.training.checkpoint import Checkpoint  # noqa: E402
from inferloop.training.loop import Settings, Validation, fit, rate  # noqa: E402
from inferloop.training.objective import Objective, bucketed, shuffled  # noqa: E402

SETTINGS = Settings(epochs=4, lr=0.02, seed=3, fingerprint="one")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(before)


class Learner:
    """Two blobs, a small network with dropout, so that both random states matter."""

    def __init__(self, *, broken_row=None, scores=None):
        random = torch.Generator().manual_seed(0)
        self.labels = torch.arange(60) % 2
        self.x = torch.randn(60, 5, generator=random) + self.labels[:, None]
        if broken_row is not None:
            self.x[broken_row] = math.nan
        torch.manual_seed(1)
        self.network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        self.objective = Objective(self.labels.numpy(), torch.ones(60).numpy(), 2, smoothing=0.0, balanced=False)
        self.scores = scores
        self.validations = 0

    def groups(self, lr):
        return [{"params": list(self.network.parameters()), "lr": lr}]

    def batches(self, random):
        return shuffled(60, 8, random)

    def loss(self, rows):
        return self.objective(self.network(self.x[rows]), rows)

    def validate(self):
        self.validations += 1
        if self.scores:
            return Validation(0.5, self.scores[self.validations - 1], 0.5)
        right = (self.network(self.x).argmax(1) == self.labels).float().mean().item()
        return Validation(1.0 - right, right, right)


def weights(learner):
    return torch.cat([value.flatten() for value in learner.network.state_dict().values()])


def stop_after(steps):
    asked = iter(range(10_000))
    return lambda: next(asked) >= steps


def test_it_learns_and_reports_every_epoch():
    learner = Learner()
    history = fit(learner, SETTINGS)
    assert len(history.epochs) == 4
    assert history.epochs[-1].validation.accuracy > 0.8
    assert history.epochs[-1].loss < history.epochs[0].loss


@pytest.mark.parametrize("steps", [0, 3, 8, 13, 31])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, steps):
    straight = Learner()
    whole = fit(straight, SETTINGS)

    with pytest.raises(Cancelled, match="interrupted at epoch"):
        fit(Learner(), SETTINGS, checkpoint=tmp_path / "c.pt", stop=stop_after(steps))
    torch.rand(7)  # another life in between
    resumed = Learner()
    history = fit(resumed, SETTINGS, checkpoint=tmp_path / "c.pt", resume=True)

    assert history.resumed is not None
    assert torch.equal(weights(resumed), weights(straight))
    assert [epoch[:2] for epoch in history.epochs] == [epoch[:2] for epoch in whole.epochs]
    assert not (tmp_path / "c.pt").exists()


def test_ctrl_c_saves_the_state_and_leaves_the_handler_as_it_was(tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def press(progress):
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Cancelled) as error:
        fit(Learner(), SETTINGS, checkpoint=tmp_path / "c.pt", progress=press)
    assert "--resume" in error.value.hint
    assert Checkpoint.load(tmp_path / "c.pt", "one").step == 5
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite_names_epoch_batch_and_rows():
    with pytest.raises(InvalidInput, match=r"the loss is nan at epoch 1, batch \d of 8 \(rows .*17") as error:
        fit(Learner(broken_row=17), Settings(epochs=1, lr=0.01))
    assert "precision" in error.value.hint


def test_it_stops_when_it_gets_no_better_and_keeps_the_best_weights():
    learner = Learner(scores=[0.6, 0.9, 0.8, 0.7, 0.95])
    history = fit(learner, Settings(epochs=5, lr=0.02, patience=2))
    assert len(history.epochs) == 4
    assert history.best == 1


def test_a_gradient_is_clipped():
    learner = Learner()
    learner.x *= 1e4
    moved = weights(learner)
    fit(learner, Settings(epochs=1, lr=1e-3, clip=1e-9, weight_decay=0.0))
    assert (weights(learner) - moved).abs().max() < 0.02


def test_the_rate_rises_then_falls():
    rates = [rate(step, 100) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    with pytest.raises(Cancelled):
        fit(Learner(), SETTINGS, checkpoint=tmp_path / "c.pt", stop=stop_after(2))
    with pytest.raises(InvalidInput, match="another config or data set"):
        Checkpoint.load(tmp_path / "c.pt", "two")


def test_a_damaged_or_newer_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InvalidInput, match="damaged"):
        Checkpoint.load(path, "one")
    torch.save({"schema": 99}, path)
    with pytest.raises(NewerSchema, match="99"):
        Checkpoint.load(path, "one")


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write checkpoint"):
        fit(Learner(), SETTINGS, checkpoint=tmp_path / "file" / "c.pt", stop=stop_after(2))


def test_balanced_weights_make_every_class_count_the_same():
    import numpy as np

    labels = np.array([0] * 9 + [1])
    even = Objective(labels, np.ones(10, np.float32), 2, smoothing=0.0, balanced=True)
    logits = torch.zeros(10, 2)
    logits[9, 0] = 3.0
    rare = even(logits[9:], torch.tensor([9])).item()
    plain = Objective(labels, np.ones(10, np.float32), 2, smoothing=0.0, balanced=False)(logits[9:], torch.tensor([9])).item()
    assert rare == pytest.approx(5 * plain)


def test_no_batch_has_a_single_row():
    sizes = [len(batch) for batch in shuffled(65, 8, torch.Generator().manual_seed(0))]
    assert sum(sizes) == 65
    assert min(sizes) > 1


def test_buckets_hold_rows_of_similar_length_and_every_row_once():
    lengths = torch.arange(1, 321)
    batches = bucketed(lengths, 16, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(320))
    assert max(int(lengths[batch].max() - lengths[batch].min()) for batch in batches) == 15
