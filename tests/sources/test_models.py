"""The model loader: every source, what is recorded of a model, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertForSequenceClassification, DistilBertTokenizerFast

from distilbench import paths, studies
from distilbench.errors import DeviceError, DistilbenchError, ModelError
from distilbench.sources import embedded, families, hub, models
from distilbench.sources.models import HUB_MODEL, load_model, match_labels
from distilbench.sources.tokenizers import load_tokenizer, table_rows

TINY = {"source": "random", "size": "tiny", "vocab_size": 200}
TOKENIZER = paths.repo_root() / "tests" / "data" / "tiny_tokenizer"
IDS = torch.tensor([[2, 17, 55, 3], [2, 99, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])

# By hand, for 2 layers of 64 (hidden 128), 200 words, 512 positions, 2 labels:
EMBEDDINGS = 200 * 64 + 512 * 64 + 2 * 64
LAYER = 4 * (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64) + 2 * (2 * 64)
HEAD = (64 * 64 + 64) + (64 * 2 + 2)
PARAMETERS = EMBEDDINGS + 2 * LAYER + HEAD

# ------------------------------------------------------------------ random weights


def test_random_weights_are_the_same_for_the_same_seed():
    one, again, other = load_model(**TINY), load_model(**TINY), load_model(**TINY, seed=18)
    assert one.info.sha256 == again.info.sha256
    assert one.info.sha256 != other.info.sha256
    assert torch.equal(one.forward(IDS, MASK), again.forward(IDS, MASK))
    assert not torch.equal(one.forward(IDS, MASK), other.forward(IDS, MASK))


def test_parameters_and_bytes_are_those_counted_by_hand():
    info = load_model(**TINY).info
    assert info.parameters == PARAMETERS == 116_930
    assert info.memory_bytes == 4 * PARAMETERS + 8 * 512, "float32, and one int64 buffer of positions"
    half = load_model(**TINY, dtype="bfloat16").info
    assert half.memory_bytes == 2 * PARAMETERS + 8 * 512
    assert info.disk_bytes is None, "they are in no file"


def test_what_is_recorded_of_random_weights():
    info = load_model(**TINY).info
    assert (info.source, info.revision, info.dtype, info.attention, info.device) == (
        "random", None, "float32", "sdpa", "cpu",
    )  # fmt: skip
    assert "random weights" in info.name
    assert info.load_s > 0
    assert info.label_names == ("LABEL_0", "LABEL_1")


def test_the_base_shape_is_distilberts(monkeypatch):
    """66.96 M parameters with the head; on the meta device, so that the test does not fill them."""
    seen = []

    class Stop(Exception):
        pass

    def no_weights(config):
        seen.append(config)
        raise Stop

    monkeypatch.setattr(families.transformers, "DistilBertForSequenceClassification", no_weights)
    with pytest.raises(Stop):
        load_model(source="random")
    with torch.device("meta"):
        model = DistilBertForSequenceClassification(seen[0])
    assert sum(p.numel() for p in model.parameters()) == 66_955_010


def test_the_model_does_not_learn_or_drop_out():
    loaded = load_model(**TINY)
    assert not loaded.module.training
    logits = loaded.forward(IDS, MASK)
    assert logits.shape == (2, 2)
    assert not logits.requires_grad
    assert torch.equal(logits, loaded.forward(IDS, MASK))


def test_padding_does_not_change_the_logits():
    loaded = load_model(**TINY)
    alone = loaded.forward(IDS[1:, :3], MASK[1:, :3])
    assert torch.allclose(loaded.forward(IDS, MASK)[1], alone[0], atol=1e-6)


# ------------------------------------------------------------------ arguments


def test_dtype_attention_and_autocast_do_what_they_say():
    plain = load_model(**TINY)
    assert plain.forward(IDS, MASK).dtype == torch.float32
    eager = load_model(**TINY, attention="eager")
    assert eager.info.attention == "eager"
    assert torch.allclose(eager.forward(IDS, MASK), plain.forward(IDS, MASK), atol=1e-5)
    half = load_model(**TINY, dtype="bfloat16")
    assert {p.dtype for p in half.module.parameters()} == {torch.bfloat16}
    assert half.info.dtype == "bfloat16"
    mixed = load_model(**TINY, autocast="bfloat16")
    assert {p.dtype for p in mixed.module.parameters()} == {torch.float32}
    assert mixed.forward(IDS, MASK).dtype == torch.bfloat16
    assert mixed.info.sha256 == plain.info.sha256


def test_compile_is_asked_for_once_and_used(monkeypatch):
    asked = []

    def compile(module):
        asked.append(module)
        return lambda **inputs: module(**inputs)

    monkeypatch.setattr(torch, "compile", compile)
    loaded = load_model(**TINY, compile=True)
    assert asked == [loaded.module]
    assert torch.equal(loaded.forward(IDS, MASK), load_model(**TINY).forward(IDS, MASK))


def test_a_device_that_is_not_there_is_refused_and_those_that_are_there_are_listed():
    with pytest.raises(DeviceError, match=r"there is no device 'cuda:9' here.* Devices: cpu"):
        load_model("cuda:9", **TINY)


def test_the_arguments_come_from_the_parameters():
    given = {"profile": "ci", "device": "cuda:1", "dtype": "bfloat16", "seed": 3}
    got = studies.resolve("distilbert", given).params.model_arguments(vocab_size=191)
    assert got == {
        "device": "cuda:1", "source": "random", "path": "", "name": HUB_MODEL, "revision": "714eb0f",
        "dtype": "bfloat16", "family": "distilbert", "size": "tiny", "task": "movies", "vocab_size": 191, "seed": 3,
    }  # fmt: skip
    assert load_model(**got | {"device": "cpu"}).module.config.vocab_size == 191


# ------------------------------------------------------------------ checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model with named labels and its tokenizer, saved as anyone would save them."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sst2"
    module = load_model(**TINY).module
    module.config.id2label, module.config.label2id = {0: "NEGATIVE", 1: "POSITIVE"}, {"NEGATIVE": 0, "POSITIVE": 1}
    module.save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return folder


def test_a_local_checkpoint_is_the_model_that_was_saved(checkpoint):
    loaded, saved = load_model(source="local", path=checkpoint), load_model(**TINY)
    assert torch.equal(loaded.forward(IDS, MASK), saved.forward(IDS, MASK))
    weights = checkpoint / "model.safetensors"
    assert loaded.info.sha256 == paths.sha256_file(weights)
    assert loaded.info.disk_bytes == weights.stat().st_size > 4 * PARAMETERS
    assert loaded.info.parameters == PARAMETERS
    assert loaded.info.label_names == ("NEGATIVE", "POSITIVE")
    assert loaded.info.name == "local checkpoint tiny-sst2"


def test_a_checkpoint_is_loaded_as_asked(checkpoint):
    loaded = load_model(source="local", path=checkpoint, dtype="float16", attention="eager")
    assert (loaded.info.dtype, loaded.info.attention) == ("float16", "eager")
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float16}


def test_a_hub_checkpoint_carries_its_commit(checkpoint, monkeypatch):
    monkeypatch.setattr(hub, "fetch_model", lambda name, revision: (checkpoint, revision * 40))
    info = load_model(source="hub", name="someone/tiny", revision="a").info
    assert (info.source, info.name, info.revision) == ("hub", "someone/tiny", "a" * 40)


def test_a_checkpoint_that_lacks_tensors_is_refused(checkpoint, tmp_path):
    """transformers would fill them with random numbers and only warn."""
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    state = load_file(checkpoint / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 2 tensors of a DistilBERT classifier, such as 'classifier\.bias'"):
        load_model(source="local", path=tmp_path)


def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="holds no DistilBERT checkpoint"):
        load_model(source="local", path=tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no checkpoint \(config.json, model.safetensors\)"):
        load_model(source="local", path=tmp_path)


def test_weights_of_another_shape_are_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dim": 32}))
    with pytest.raises(ModelError, match="DistilBERT"):
        load_model(source="local", path=tmp_path)


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(DistilbenchError, match="there is no 'no/such/model'"):
        load_model(source="local", path="no/such/model")


@pytest.mark.embedded
def test_the_embedded_model_tells_good_from_bad():
    loaded = load_model(source="embedded")
    tokenizer = DistilBertTokenizerFast.from_pretrained(embedded.classifier_dir())
    inputs = tokenizer(
        ["A wonderful, moving film with superb performances.", "A tedious and badly acted waste of time."],
        padding=True,
        return_tensors="pt",
    )
    predicted = loaded.forward(inputs["input_ids"], inputs["attention_mask"]).argmax(-1).tolist()
    assert [loaded.info.label_names[i] for i in predicted] == ["positive", "negative"]
    assert loaded.info.parameters == 22_713_218
    assert loaded.info.name == embedded.ENCODER, "it is not called DistilBERT on SST-2"


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("model", "meaning"),
    [(("negative", "positive"), [0, 1]), (("NEGATIVE", "Positive"), [0, 1]), (("POSITIVE", "NEGATIVE"), [1, 0])],
)
def test_labels_are_matched_by_name_in_any_case_and_order(model, meaning):
    assert match_labels(model, ("negative", "positive")) == meaning


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (("negative", "positive"), ("good", "bad")),
        (("negative", "positive"), ("negative", "neutral", "positive")),
        (("negative", "neutral", "positive"), ("negative", "positive")),
        (("positive", "POSITIVE"), ("negative", "positive")),
        (("negative", "positive"), ("positive", "Positive")),
    ],
    ids=["other names", "more in the data", "more in the model", "twice in the model", "twice in the data"],
)
def test_labels_without_one_counterpart_each_are_refused_and_both_lists_are_named(model, data):
    with pytest.raises(ModelError, match="the data must use the model's names") as raised:
        match_labels(model, data)
    assert str(list(model)) in str(raised.value)
    assert str(list(data)) in str(raised.value)


def test_a_model_that_does_not_name_its_classes_is_refused_with_advice():
    with pytest.raises(ModelError, match=r"\['LABEL_0', 'LABEL_1'\] do not match .* save it with id2label"):
        match_labels(("LABEL_0", "LABEL_1"), ("negative", "positive"))


@pytest.mark.parametrize(
    "id2label",
    [{"0": "a", "2": "b"}, {"0": 0, "1": 1}, {"0": "a", "1": None}, {"0": "a", "1": " "}, ["a", "b"], {"x": "a"}],
    ids=["a gap", "numbers", "null", "blank", "a list", "no numbers"],
)
def test_a_checkpoint_whose_classes_are_not_all_named_is_refused(checkpoint, tmp_path, id2label):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": id2label}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(source="local", path=tmp_path)


# ------------------------------------------------------------------ which tokenizer


@pytest.fixture
def known_folders(monkeypatch, tmp_path):
    """Each place where a tokenizer may be, as a folder named after it; loading one returns the folder."""

    def place(name):
        folder = tmp_path / name.replace("/", " ")
        folder.mkdir(exist_ok=True)
        (folder / "vocab.txt").touch()
        return folder

    monkeypatch.setattr(DistilBertTokenizerFast, "from_pretrained", lambda folder, local_files_only: folder)
    monkeypatch.setattr(hub, "fetch_model", lambda name, revision: (place(f"hub {name}@{revision}"), "c" * 40))
    monkeypatch.setattr(embedded, "tokenizer_dir", lambda: place("embedded"))
    place("local")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"source": "embedded"}, "embedded"),
        ({"source": "random"}, "embedded"),
        ({"source": "hub"}, f"hub {HUB_MODEL.replace('/', ' ')}@714eb0f"),
        ({"source": "hub", "model_name": "a/b", "model_revision": "c"}, "hub a b@c"),
        ({"source": "random", "data_source": "hub", "model_name": "a/b", "model_revision": "c"}, "hub a b@c"),
        ({"source": "embedded", "data_source": "hub"}, "embedded"),
        ({"model_source": "local", "model_path": "local"}, "local"),
        ({"source": "embedded", "tokenizer_path": "local"}, "local"),
    ],
)
def test_the_tokenizer_belongs_to_the_model(known_folders, monkeypatch, given, folder):
    monkeypatch.chdir(known_folders)
    assert load_tokenizer(studies.resolve("distilbert", {"profile": "smoke"} | given).params) == known_folders / folder


def test_the_real_tokenizer_of_a_folder():
    loaded = load_tokenizer(studies.resolve("distilbert", {"profile": "ci"}).params)
    assert len(loaded) == 191
    assert loaded("A warm film.")["input_ids"][0] == loaded.cls_token_id


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    given = {"profile": "ci", "tokenizer_path": str(tmp_path)}
    resolved = studies.resolve("distilbert", given).params
    with pytest.raises(ModelError, match=r"holds no tokenizer \(tokenizer.json or vocab.txt\)"):
        load_tokenizer(resolved)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(resolved)


def tokens(*ids: int) -> SimpleNamespace:
    """As much of a tokenizer as is looked at."""
    return SimpleNamespace(get_vocab=lambda: {f"t{i}": i for i in ids})


def test_a_table_may_have_more_rows_than_the_tokenizer_has_tokens():
    """Checkpoints whose tables are filled up to a multiple of 64 or so, for the sake of the hardware."""
    loaded = load_model("cpu", source="random", size="tiny", vocab_size=256)
    models.check_fit(loaded, tokens(*range(191)), longest=16)
    assert table_rows(tokens(0, 7)) == 8, "ids may have gaps"


def test_a_tokenizer_that_is_not_the_models_is_refused():
    loaded = load_model("cpu", source="random", size="tiny", vocab_size=191)
    tokenizer = tokens(*range(191))
    models.check_fit(loaded, tokenizer, longest=512)
    with pytest.raises(
        ModelError, match="ids go up to 191, the model's table has 191 rows: they do not belong together"
    ):
        models.check_fit(loaded, tokens(*range(192)), longest=16)
    with pytest.raises(ModelError, match="ids go up to 300"):
        models.check_fit(loaded, tokens(0, 1, 300), longest=16)
    with pytest.raises(ModelError, match="512 tokens at most, asked for are 600"):
        models.check_fit(loaded, tokenizer, longest=600)


def test_the_checksum_of_random_weights_makes_no_second_copy_of_them():
    """A copy would be in the peak memory of every repetition with random weights."""
    code = (
        "from distilbench.collectors import memory\n"
        "from distilbench.sources import models\n"
        "module = models.load_model('cpu', source='random').module\n"
        "loaded = memory.rss_MiB()\n"
        "print(memory.peak_rss_MiB() - loaded)"
    )
    over = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert over < 120, "the weights are 255 MiB"
