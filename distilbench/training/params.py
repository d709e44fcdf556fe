"""The parameters of a training: those of the script, and of the study that runs it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distilbench.runs.parameters import Count, NotNegative, Positive, Threads
from distilbench.sources.parameters import SourceParams


class TrainingParams(SourceParams):
    """DistilBERT fine-tuned on labelled text, by default AG News (Zhang et al. 2015, arXiv:1509.01626)."""

    IS_TRAINED = False
    study: str = "agnews"
    embedded_task: Literal["sources"] = Field(
        "sources", description="the embedded text: which of four sources it is of"
    )
    model_name: str = "distilbert/distilbert-base-uncased"
    model_revision: str = "main"
    model_family: Literal["distilbert"] = Field("distilbert", description="architecture")
    model_size: Literal["base", "tiny"] = Field("base", description="shape of random weights: base, or tiny, for tests")
    dataset_name: str = "fancyzhx/ag_news"
    dataset_config: str = "default"
    dataset_split: str = Field("train", description="its split to train on; validation is carved from it")
    test_split: str = Field("test", description="its split that is opened once, at the end")
    test_path: str = Field("", description="csv, tsv or jsonl file to test on, for data_source local")
    validation_share: float = Field(
        0.05, gt=0, lt=1, description="of the training split, by a hash of its text; embedded text has its own"
    )
    train_rows: Count | None = Field(None, description="train on the first so many rows of a shuffle; empty: on all")
    dtype: Literal["float32", "float64"] = Field("float32", description="type of weights and gradients")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="type of the products: a lower one than dtype is autocast; float16 scales the loss"
    )
    epochs: Count = Field(3, description="passes over the training rows, at most")
    max_steps: Count | None = Field(None, description="optimizer steps, at most; empty: those of all epochs")
    batch_size: Count = Field(32, description="rows per forward of a process")
    accumulation: Count = Field(1, description="forwards per optimizer step of a process")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW (Loshchilov & Hutter 2019), or plain SGD")
    learning_rate: Positive = Field(5e-5, description="highest, after the warm-up")
    head_learning_rate: Positive | None = Field(
        None, description="of the classifier's own layers, which start untrained; empty: as the others"
    )
    weight_decay: NotNegative = Field(0.01, description="of AdamW; none of biases and LayerNorm")
    warmup_share: float = Field(
        0.06, ge=0, lt=1, description="of all steps, in which the learning rate rises; then it falls"
    )
    clip_norm: NotNegative = Field(1.0, description="most that the norm of all gradients may be; 0: not clipped")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the encoder and the classifier")
    max_length: Count = Field(
        128, description="tokens; what is longer is cut, what is shorter is padded to its batch's longest"
    )
    group_by_length: bool = Field(True, description="rows of similar length together, which saves padding")
    evaluation_batch_size: Count = Field(64, description="rows per forward of an evaluation")
    evaluate_every: Literal["epoch", "end"] = Field("epoch", description="when the validation rows are classified")
    patience: int = Field(0, ge=0, description="epochs without a better validation accuracy before it stops; 0: never")
    checkpoint_steps: int = Field(
        0, ge=0, description="optimizer steps between two states to resume from; 0: each epoch's end"
    )
    deterministic: bool = Field(False, description="only operators whose result is the same each time; slower on a GPU")
    collective_timeout_s: Positive = Field(45.0, description="most that a process waits for another")
    num_threads: Threads = 0
    tensorboard: bool = Field(False, description="write TensorBoard events beside the results")

    @model_validator(mode="after")
    def _check(self) -> TrainingParams:
        if self.data_source == "local" and not self.test_path:
            raise ValueError("data_source is 'local', so test_path must name a file to test on")
        if self.precision != "float32" and self.dtype != "float32":
            raise ValueError(f"precision {self.precision} is autocast from float32 weights; dtype is {self.dtype}")
        return self

    @property
    def splits(self) -> list[str]:
        """Those to train and to test on."""
        return [self.dataset_split, self.test_split]

    @property
    def trained_on(self) -> str:
        """What a checkpoint is named after: the data, so that none trained on other text is taken for AG News."""
        if self.data_source == "embedded":
            return "four_sources"
        if self.data_source == "hub":
            name = self.dataset_name.rsplit("/", 1)[-1]
            return "agnews" if self.dataset_name == "fancyzhx/ag_news" else _file_name(name)
        return _file_name(self.data_path.rsplit("/", 1)[-1].split(".")[0])


def _file_name(text: str) -> str:
    """Fit for a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text.lower()) or "data"
