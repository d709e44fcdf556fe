"""One process; several are in test_many."""

import math

import pytest
import torch
import training_rows
from torch.nn.functional import cross_entropy

from distilbench import paths
from distilbench.errors import ImplausibleError, RunError, Stopped
from distilbench.runs.rawfiles import read_parquet
from distilbench.training import checkpoint, corpus, steps, trainer
from distilbench.training.evaluation import evaluate
from distilbench.training.model import build, optimizer_of, schedule_of
from distilbench.training.ranks import Ranks
from distilbench.training.trainer import Trainer

HERE = Ranks(0, 1, 0, 1, torch.device("cpu"), "none")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The folder of the rows, and what is prepared of them."""
    folder = tmp_path_factory.mktemp("rows")
    return folder, corpus.prepare(training_rows.params(folder), folder / "prepared")


def trained(rows, output, **given) -> tuple[Trainer, dict]:
    one = Trainer(training_rows.params(rows[0], **given), rows[1], output, HERE)
    one.resume()
    one.train()
    return one, one.finish({"run_id": "mine"})


@pytest.fixture(scope="module")
def finished(rows, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished")
    return folder, *trained(rows, folder, epochs=3)


def test_it_learns(rows, tmp_path):
    given = {"epochs": 15, "learning_rate": 3e-3, "dropout": 0.0, "evaluate_every": "end"}
    _, results = trained(rows, tmp_path, **given)
    losses = [epoch["training_loss"] for epoch in results["epochs"]]
    assert losses[-1] < 0.5 * losses[0]
    assert results["test_accuracy"] > 0.7, "four classes"
    low, high = results["test_wilson_95"]
    assert low < results["test_accuracy"] < high


def test_the_results_say_what_each_epoch_was(finished):
    _, _, results = finished
    assert [epoch["epoch"] for epoch in results["epochs"]] == [1, 2, 3]
    assert all(epoch["seconds"] > 0 for epoch in results["epochs"])
    assert results["test_rows"] == training_rows.TEST


def test_every_step_is_written_and_the_epochs_follow_from_it(finished):
    folder, one, results = finished
    found = read_parquet(folder / "steps.parquet")
    per_epoch = math.ceil(len(one.rows["train"]) / 12)
    assert [row["step"] for row in found] == list(range(1, 3 * per_epoch + 1))
    assert {row["rank"] for row in found} == {0}
    assert sum(row["samples"] for row in found) == 3 * len(one.rows["train"])
    assert all(row["allreduce_ms"] == 0 < row["forward_ms"] < row["step_ms"] for row in found)
    assert all(row["tokens"] <= row["positions"] for row in found)
    again = steps.epochs_of(found)
    keys = ("epoch", "steps", "rows", "training_loss", "training_accuracy", "steps_skipped")
    assert [{key: epoch[key] for key in keys} for epoch in results["epochs"]] == again
    rates = [row["learning_rate"] for row in found]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < rates[len(rates) // 2] > rates[-1] > 0


def test_the_accuracy_is_that_of_the_predictions(finished):
    folder, _, results = finished
    every = read_parquet(folder / "predictions.parquet")
    found = [row for row in every if row["split"] == "test"]
    assert len({row["sample"] for row in found}) == training_rows.TEST
    assert sum(row["label"] == row["predicted"] for row in found) == results["test_correct"]
    for epoch in results["epochs"]:
        right = [
            row["label"] == row["predicted"]
            for row in every
            if (row["split"], row["epoch"]) == ("validation", epoch["epoch"])
        ]
        assert sum(right) / len(right) == epoch["validation_accuracy"]


def test_the_checkpoint_says_what_it_was_trained_on(finished, rows):
    folder, _, results = finished
    found = checkpoint.load(folder / "distilbert_train.pt")
    assert found["label_names"] == rows[1].label_names
    assert found["run_id"] == "mine"
    assert found["data_sha256"] == rows[1].data["content_sha256"]
    assert not any("network" in name or "module" in name for name in found["model"])
    assert results["files_sha256"].keys() == {"distilbert_train.pt", "distilbert_train/model.safetensors"}
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    again = AutoModelForSequenceClassification.from_pretrained(folder / "distilbert_train")
    assert again.config.id2label == dict(enumerate(rows[1].label_names))
    tokenizer = AutoTokenizer.from_pretrained(folder / "distilbert_train")
    assert len(tokenizer("the team won")["input_ids"]) > 3
    weights = again.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in found["model"].items())


def test_only_ag_news_is_called_ag_news(rows):
    assert training_rows.params(rows[0]).trained_on == "train"
    assert training_rows.params(rows[0], data_source="embedded").trained_on == "four_sources"
    hub = {"data_source": "hub"}
    assert training_rows.params(rows[0], **hub).trained_on == "agnews"
    assert training_rows.params(rows[0], **hub, dataset_name="me/my news!").trained_on == "my_news_"
    assert training_rows.params(rows[0], **hub, dataset_name="me/ag_news").trained_on == "ag_news"


@pytest.mark.parametrize("stop_after", [5, 10, 13])
def test_a_resumed_training_ends_with_the_same_weights_to_the_last_bit(
    rows, tmp_path, monkeypatch, stop_after, finished
):
    given = {"epochs": 3, "checkpoint_steps": 5}
    one_step = Trainer.one_step

    def killed(self, *arguments):
        if self.step == stop_after:
            raise KeyboardInterrupt
        one_step(self, *arguments)

    monkeypatch.setattr(Trainer, "one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(rows, tmp_path, **given)
    monkeypatch.setattr(Trainer, "one_step", one_step)
    _, results = trained(rows, tmp_path, **given)
    assert results["interruptions"] == 1
    weights, undisturbed = (
        checkpoint.load(folder / "distilbert_train.pt")["model"] for folder in (tmp_path, finished[0])
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in undisturbed.items())
    columns = ("epoch", "step", "samples", "loss_sum", "correct", "learning_rate", "gradient_norm")
    found, whole = (read_parquet(folder / "steps.parquet") for folder in (tmp_path, finished[0]))
    assert [[row[c] for c in columns] for row in found] == [[row[c] for c in columns] for row in whole]


def test_a_training_killed_after_its_last_step_still_ends_its_last_epoch(rows, tmp_path, monkeypatch):
    given = {"epochs": 2, "max_steps": 15, "checkpoint_steps": 5}  # the last step is saved before its epoch ends
    _, undisturbed = trained(rows, tmp_path / "undisturbed", **given)
    end_epoch = Trainer._end_epoch

    def killed(self, *arguments):
        if self.epoch == 1:
            raise KeyboardInterrupt
        end_epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "_end_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(rows, tmp_path / "killed", **given)
    monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
    _, results = trained(rows, tmp_path / "killed", **given)
    keys = ("epoch", "training_loss", "validation_loss", "validation_accuracy")
    found, whole = ([[one[key] for key in keys] for one in of["epochs"]] for of in (results, undisturbed))
    assert found == whole
    assert results["test_correct"] == undisturbed["test_correct"]


def test_a_state_of_another_training_is_refused(rows, tmp_path):
    trained(rows, tmp_path, epochs=1)
    with pytest.raises(RunError, match=r"is of another training: learning_rate was 0\.001, and is 0\.01"):
        trained(rows, tmp_path, epochs=1, learning_rate=0.01)
    with pytest.raises(RunError, match="a step had 12 rows, and would have 6 now"):
        trained(rows, tmp_path, epochs=1, batch_size=6)


def test_forwards_of_a_step_that_are_accumulated_give_the_same_step(rows, tmp_path):
    given = {"epochs": 1, "max_steps": 6, "dropout": 0.0, "dtype": "float64", "optimizer": "sgd", "learning_rate": 0.1}
    whole, _ = trained(rows, tmp_path / "whole", **given)
    parts, _ = trained(rows, tmp_path / "parts", **given, batch_size=4, accumulation=3)
    for (name, one), other in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12), name


def test_it_ends_when_nothing_gets_better(rows, tmp_path):
    _, results = trained(rows, tmp_path, epochs=6, patience=2, learning_rate=1e-12)
    assert len(results["epochs"]) == 3
    assert results["best_epoch"] in (1, 2, 3)


def test_steps_can_be_limited(rows, tmp_path):
    _, results = trained(rows, tmp_path, max_steps=3)
    assert [epoch["steps"] for epoch in results["epochs"]] == [3]
    assert results["epochs"][0]["validation_accuracy"] is not None, "the end is evaluated, wherever it is"


def test_an_evaluation_at_the_end_alone(rows, tmp_path):
    _, results = trained(rows, tmp_path, evaluate_every="end")
    assert [epoch["validation_accuracy"] is None for epoch in results["epochs"]] == [True, False]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_on_and_the_weights_stay_float32(rows, tmp_path, monkeypatch, precision):
    seen = []
    forward = torch.nn.functional.linear

    def linear(inputs, *rest):
        seen.append(forward(inputs, *rest).dtype)
        return forward(inputs, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    one, results = trained(rows, tmp_path, precision=precision, max_steps=2, deterministic=False)
    assert getattr(torch, precision) in seen
    assert {tensor.dtype for tensor in one.model.parameters()} == {torch.float32}
    assert results["epochs"][0]["steps"] == 2
    assert one.scaler.is_enabled() == (precision == "float16")


def test_gradients_are_unscaled_before_they_are_clipped(rows, tmp_path, monkeypatch):
    calls = []
    one = Trainer(training_rows.params(rows[0], precision="float16"), rows[1], tmp_path, HERE)
    monkeypatch.setattr(one.schedule, "step", lambda: calls.append("rate"))
    for name in ("unscale_", "step", "update"):
        monkeypatch.setattr(one.scaler, name, lambda *_, name=name: calls.append(name))
    monkeypatch.setattr(trainer, "clip_grad_norm_", lambda *_: calls.append("clip") or torch.tensor(1.0))
    one._update()
    assert calls == ["unscale_", "clip", "step", "update", "rate"]


def test_gradients_that_are_not_finite_end_it(rows, tmp_path):
    with pytest.raises(ImplausibleError, match=r"the gradients of step \d+ are not finite: a lower learning_rate"):
        trained(rows, tmp_path, learning_rate=1e30, optimizer="sgd", clip_norm=0.0)


def test_a_batch_larger_than_the_data_is_refused(rows, tmp_path):
    with pytest.raises(RunError, match=r"1 x 500 rows per forward are more than the \d+ rows to train on"):
        trained(rows, tmp_path, batch_size=500)


def test_it_stops_when_asked_and_goes_on(rows, tmp_path, monkeypatch):
    file = tmp_path / "stop"
    file.touch()
    monkeypatch.setenv("DISTILBENCH_STOP_FILE", str(file))
    monkeypatch.setattr(trainer, "LOOK_EVERY", 4)
    with pytest.raises(Stopped, match="asked to stop after step 4; the state is saved"):
        trained(rows, tmp_path / "out", epochs=1)
    file.unlink()
    _, results = trained(rows, tmp_path / "out", epochs=1)
    assert results["interruptions"] == 1


def test_tensorboard_gets_the_epochs(rows, tmp_path):
    trained(rows, tmp_path, epochs=1, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events*"))


# ------------------------------------------------------------------ model and evaluation


def test_the_head_may_learn_faster_and_norms_do_not_decay(rows):
    params = training_rows.params(rows[0], head_learning_rate=0.5)
    model = build(params, rows[1].label_names, rows[1].vocab_size)
    groups = optimizer_of(model, params).param_groups
    assert sum(len(group["params"]) for group in groups) == len([*model.parameters()])
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {
        (0.5, 0.01), (0.5, 0.0), (1e-3, 0.01), (1e-3, 0.0),
    }  # fmt: skip
    heads = [p for group in groups if group["lr"] == 0.5 for p in group["params"]]
    assert {id(p) for p in heads} == {
        id(p) for name, p in model.network.named_parameters() if name.startswith(("pre_classifier", "classifier"))
    }


def test_the_learning_rate_rises_and_falls_in_lines():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = schedule_of(optimizer, 10, 0.2)
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_the_loss_of_an_evaluation_is_the_mean_over_rows(finished, rows):
    _, one, results = finished
    found, predictions = one.evaluate("test")
    assert found["correct"] == results["test_correct"]
    logits = torch.tensor([row["logits"] for row in predictions])
    labels = torch.tensor([row["label"] for row in predictions])
    assert found["loss"] == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_evaluation_is_the_same_for_any_number_of_processes(finished, world):
    """The shares of several processes, one after the other; those of real ones are in test_many."""
    _, one, _ = finished
    one.model.eval()
    parts = []

    class Share(Ranks):
        """One of several, which is told what all of them counted, and keeps its predictions to itself."""

        def add(self, *values):
            return [*values[:2], len(one.rows["test"])]

        def gather(self, thing):
            return [thing]

    for rank in range(world):
        share = Share(rank, world, rank, world, torch.device("cpu"), "gloo")
        parts += evaluate(one.model, one.rows["test"], 16, share)[1]
    assert sorted(parts, key=str) == sorted(one.evaluate("test")[1], key=str)


def test_a_row_that_is_counted_twice_is_found(finished):
    _, one, _ = finished

    class Twice(Ranks):
        def add(self, *values):
            return [values[0], values[1], values[2] + 1]

    with pytest.raises(ImplausibleError, match="54 rows were classified; there are 53"):
        evaluate(one.model, one.rows["test"], 16, Twice(0, 1, 0, 1, torch.device("cpu"), "none"))


def test_results_are_written(finished):
    folder, _, results = finished
    assert paths.read_json(folder / "results.json")["test_correct"] == results["test_correct"]
