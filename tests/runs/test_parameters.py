"""Parameters: what counts, what is refused and in which words, and what makes a design another one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distilbench import paths, studies
from distilbench.errors import ParameterError
from distilbench.measurements.profiling.params import QwenParams
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.runs import parameters
from distilbench.sources.parameters import SourceParams
from distilbench.studies import resolve

ROOT = paths.repo_root() / "params"
STUDY_FILES = sorted(file for file in ROOT.glob("*/*.yml") if file.parent.name in studies.STUDIES)
HARDWARE_FILES = sorted((ROOT / "hardware").glob("*.yml"))


def refused(given: dict, study: str = "distilbert") -> str:
    """The message with which these parameters are refused."""
    with pytest.raises(ParameterError) as caught:
        resolve(study, given)
    return str(caught.value)


def checkout(folder, monkeypatch, **files: str):
    """A checkout whose parameter files hold this; `smoke="..."` is params/distilbert/smoke.yml."""
    (folder / "params" / "distilbert").mkdir(parents=True)
    (folder / "params" / "studies.yml").write_text(files.pop("studies", "distilbert: {notebooks: [a, b]}"))
    for name, content in files.items():
        (folder / "params" / "distilbert" / f"{name}.yml").write_text(content)
    monkeypatch.setenv("DISTILBENCH_ROOT", str(folder))
    return folder / "params" / "distilbert"


def test_a_value_that_is_not_utf8_is_refused_before_a_run_is_made():
    for name in ("model_path", "data_path", "tokenizer_path", "results_root", "dataset_name"):
        message = refused({name: os.fsdecode(b"caf\xe9")})
        assert message.startswith(f"{name}: ")
        assert r"'caf\xe9': this name is not UTF-8; rename the file or folder" in message
    assert resolve("distilbert", {"model_path": "café"}).params.model_path == "café"


# ------------------------------------------------------------------ the files


def test_no_parameter_file_is_left_out_here():
    assert STUDY_FILES
    assert set(ROOT.glob("*/*.yml")) == {*STUDY_FILES, *HARDWARE_FILES}
    assert {file.stem for file in STUDY_FILES} == set(parameters.PROFILES)


@pytest.mark.parametrize("file", STUDY_FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_each_profile_resolves_and_names_itself(file):
    resolved = resolve(file.parent.name, {"profile": file.stem})
    assert resolved.params.profile == file.stem == yaml.safe_load(file.read_text())["profile"]
    assert resolved.params.study == file.parent.name


def fits(file: Path, study: str) -> bool:
    """Whether a study has all parameters of a file: another kind of measurement has others, or means others by them."""
    model, names = studies.study_model(study), set(yaml.safe_load(file.read_text()))
    return names <= set(model.model_fields) and ("variants" not in names or issubclass(model, SourceParams))


def test_the_first_study_takes_every_hardware_file_and_every_study_takes_one():
    assert all(fits(file, "distilbert") for file in HARDWARE_FILES)
    models = [study for study, model in studies.STUDIES.items() if issubclass(model, SourceParams)]
    assert all(any(fits(file, study) for file in HARDWARE_FILES) for study in models)


@pytest.mark.parametrize(
    ("file", "study"),
    [(file, study) for file in HARDWARE_FILES for study in studies.STUDIES if fits(file, study)],
    ids=lambda value: getattr(value, "stem", value),
)
def test_each_hardware_file_goes_with_the_studies_that_have_its_parameters(file, study):
    hardware = yaml.safe_load(file.read_text())
    resolved = resolve(study, hardware)
    for name, value in hardware.items():
        assert getattr(resolved.params, name) == value
        assert resolved.origins[name] == "given"


@pytest.mark.parametrize("file", STUDY_FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_profiles_are_diffs(file):
    """A value that repeats the default would hide what the profile changes."""
    fields = studies.study_model(file.parent.name).model_fields
    content = yaml.safe_load(file.read_text())
    for name in content.keys() - {"profile", "source"}:  # these two are said always
        assert content[name] != fields[name].default, f"{name} is the default anyway"


@pytest.mark.parametrize("file", [*STUDY_FILES, *HARDWARE_FILES], ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_files_begin_with_what_they_are_for(file):
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("model", studies.STUDIES.values())
def test_every_parameter_has_a_meaning_and_a_default(model):
    for name, field in model.model_fields.items():
        assert name in ("study", "profile") or field.description, name
        assert not field.is_required(), name


def test_a_study_that_changes_a_default_keeps_the_meaning():
    ours, general = (model.model_fields["batch_sizes"] for model in (QwenParams, DistilbertParams))
    assert ours.description == general.description == "sentences per forward pass"
    assert ours.default != general.default


def test_a_parameter_that_came_later_changes_no_design_at_its_default():
    plain = studies.resolve("distilbert", {"profile": "full"})
    given = {"profile": "full", "model_family": "distilbert", "embedded_task": "movies"}
    assert studies.resolve("distilbert", given).design_hash == plain.design_hash == "87a566d73270"
    other = studies.resolve("distilbert", {"profile": "full", "model_family": "qwen2"})
    assert other.design_hash != plain.design_hash


def test_the_notebooks_of_a_study_come_from_studies_yml(tmp_path, monkeypatch):
    checkout(tmp_path, monkeypatch)
    assert studies.chain("distilbert") == ["a", "b"]


@pytest.mark.parametrize("told", ["other: {notebooks: [a]}", "distilbert: {question: why}", "distilbert: []"])
def test_a_study_whose_notebooks_are_not_told_is_refused(tmp_path, monkeypatch, told):
    checkout(tmp_path, monkeypatch, studies=told)
    with pytest.raises(ParameterError, match=r"studies\.yml does not tell the notebooks of study 'distilbert'"):
        studies.chain("distilbert")


# ------------------------------------------------------------------ what counts


def test_given_beats_the_file_beats_the_default_and_the_origin_is_known(tmp_path, monkeypatch):
    checkout(tmp_path, monkeypatch, smoke="seed: 1\nrepetitions: 3\nsource: random\n")
    resolved = resolve("distilbert", {"seed": 2, "device": None})
    assert (resolved.params.seed, resolved.params.repetitions, resolved.params.device) == (2, 3, "cpu")
    origins = resolved.origins
    assert origins["seed"] == "given"
    assert origins["repetitions"] == "params/distilbert/smoke.yml"
    assert origins["device"] == "default"
    assert set(origins) == set(DistilbertParams.model_fields)


def test_the_profile_is_the_given_one_else_the_variables_else_smoke(monkeypatch):
    assert resolve("distilbert").params.profile == "smoke"
    monkeypatch.setenv("DISTILBENCH_PROFILE", "ci")
    assert resolve("distilbert").params.profile == "ci"
    assert resolve("distilbert", {"profile": ""}).params.profile == "ci", "empty means not given"
    assert resolve("distilbert", {"profile": "full"}).params.profile == "full"
    monkeypatch.setenv("DISTILBENCH_PROFILE", "")
    assert resolve("distilbert").params.profile == "smoke"


def test_an_unknown_profile_is_refused_with_a_suggestion(monkeypatch):
    message = refused({"profile": "smok"})
    assert "unknown profile 'smok'; did you mean 'smoke'?" in message
    assert "ci, smoke, full" in message
    monkeypatch.setenv("DISTILBENCH_PROFILE", "nightly")
    assert "DISTILBENCH_PROFILE: unknown profile 'nightly'" in refused({}), "say where it came from"


@pytest.mark.parametrize("profile", [["ci"], 0, False, 1.5, {"ci": 1}])
def test_a_profile_that_is_no_text_is_refused(profile):
    assert f"unknown profile {profile!r}" in refused({"profile": profile})


@pytest.mark.parametrize("study", ["distilbrt", None, 3, ["distilbert"], ""])
def test_an_unknown_study_is_refused(study):
    message = refused({}, study)
    assert f"unknown study {study!r}" in message
    assert "Studies: distilbert" in message
    assert ("did you mean 'distilbert'?" in message) == (study in ("distilbrt", ["distilbert"]))


def test_sources_of_model_and_text_follow_the_source():
    def sources(**given):
        p = resolve("distilbert", {"profile": "full", **given}).params
        return p.model_source, p.data_source

    assert sources() == ("hub", "hub")
    assert sources(source="embedded") == ("embedded", "embedded")
    assert sources(source="random") == ("random", "embedded")
    assert sources(model_source="random") == ("random", "hub")
    assert sources(source="local", model_path="m", data_path="d") == ("local", "local")


@pytest.mark.parametrize(
    ("given", "device"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:11",) * 2]
)
def test_devices_have_one_name_each(given, device):
    assert resolve("distilbert", {"device": given}).params.device == device


@pytest.mark.parametrize("text", ["16,32", "[16, 32]", " 16 , 32 ", "(16, 32)", "16,32,", "['16', \"32\"]"])
def test_a_list_may_be_text(text):
    assert resolve("distilbert", {"profile": "full", "batch_sizes": text}).params.batch_sizes == [16, 32]


def test_a_list_of_words_may_be_text():
    p = resolve("distilbert", {"variants": "eager,sdpa", "length_policies": "[longest, fixed-64]"}).params
    assert p.variants == ["eager", "sdpa"]
    assert p.length_policies == ["longest", "fixed-64"]


@pytest.mark.parametrize("text", ["[1, ", "1]", "(1, 2]"])
def test_a_list_whose_brackets_do_not_match_is_refused(text):
    assert refused({"profile": "ci", "batch_sizes": text}).startswith(f"batch_sizes: {text!r} is not allowed: ")


# ------------------------------------------------------------------ text stays text

#: What YAML, Python or papermill would read as something else.
LOOKS_LIKE_MORE = [
    "#3.tsv", "20261126_1", "0714123", "714e105", "1e-3", "1:30", "2026-11-26", "no", "true", "null", "~", "0x1F", "-",
    "*star", "a: b", "[1]", '"quoted"', " ends in a space ", "=", "é",
]  # fmt: skip
TEXTS = [name for name, field in DistilbertParams.model_fields.items() if field.annotation is str]


@pytest.mark.parametrize("text", [*LOOKS_LIKE_MORE, ""])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_taken_as_it_stands(name, text):
    assert studies.from_text("distilbert", name, text) == text


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("seed", "010", 10),
        ("half_width", "1e-3", 0.001),
        ("half_width", "0", 0.0),
        ("max_seconds", "1:30", "1:30"),
        ("modelled_power_W", "65", 65.0),
        ("modelled_power_W", "", None),
        ("modelled_power_W", "null", None),
        ("model_source", "", None),
        ("model_source", "hub", "hub"),
        ("control", "no", False),
        ("control", "True", True),
        ("control", "maybe", "maybe"),
        ("dtype", "float16", "float16"),
        ("batch_sizes", "8,16", "8,16"),
        ("run_ids", "20261126_1", "20261126_1"),
        ("devcie", "1", "1"),
    ],
)
def test_the_type_of_a_parameter_decides_what_its_text_means(name, text, value):
    found = studies.from_text("distilbert", name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["1:30", "1,5", "five", "0x10", "1" * 5000, "1e999", "nan"])
@pytest.mark.parametrize("name", ["seed", "max_seconds"])
def test_a_text_that_is_no_number_is_refused(name, text):
    assert f"{name}: " in refused({name: studies.from_text("distilbert", name, text)})


@pytest.mark.parametrize("text", ["20261126_1", "0714123", "714e105", "1:30", "2026-11-26", "no", "0x1F", "1_0.5"])
def test_text_in_a_file_stays_text(tmp_path, monkeypatch, text):
    checkout(tmp_path, monkeypatch, smoke=f"model_revision: {text}\nlength_policies: [longest]\n")
    assert resolve("distilbert").params.model_revision == text


def test_text_in_a_list_in_a_file_stays_text(tmp_path, monkeypatch):
    checkout(tmp_path, monkeypatch, smoke="run_ids: [20261126_1, 0714123, 2026-11-26]\n")
    assert resolve("distilbert").params.run_ids == ["20261126_1", "0714123", "2026-11-26"]


@pytest.mark.parametrize("value", ["714123", "1.5", "true"])
def test_a_number_in_a_file_where_text_belongs_is_refused_with_what_to_do(tmp_path, monkeypatch, value):
    checkout(tmp_path, monkeypatch, smoke=f"model_revision: {value}\n")
    message = refused({})
    assert message.startswith(f"model_revision: {yaml.safe_load(value)!r} is not allowed: ")
    assert "Put it in quotes in a file or a notebook" in message
    assert "with papermill, -r in place of -p" in message
    checkout(tmp_path / "quoted", monkeypatch, smoke=f'model_revision: "{value}"\n')
    assert resolve("distilbert").params.model_revision == value


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.1e-2", "+1e-03", "1.0e-3", "0.001", ".001"])
def test_a_small_number_may_be_written_as_everybody_does(tmp_path, monkeypatch, text):
    checkout(tmp_path, monkeypatch, smoke=f"half_width: {text}\n")
    assert resolve("distilbert").params.half_width == 0.001


@pytest.mark.parametrize(("line", "name"), [("seed: 010", "seed"), ("max_seconds: 1:30", "max_seconds")])
def test_a_number_that_yaml_reads_in_its_own_way_is_refused(tmp_path, monkeypatch, line, name):
    checkout(tmp_path, monkeypatch, smoke=line)
    assert refused({}).startswith(f"{name}: {line.partition(' ')[2]!r} is not allowed: ")


# ------------------------------------------------------------------ what is refused


def test_an_unknown_parameter_is_refused_with_a_suggestion():
    message = refused({"batch_sizs": [1]})
    assert "unknown parameter 'batch_sizs'; did you mean 'batch_sizes'?" in message
    assert "Parameters: study, profile, run_id" in message


def test_all_unknown_parameters_are_named_at_once_without_wild_guesses():
    message = refused({"xyzzy": 1, "devise": "cpu"})
    assert "unknown parameter 'xyzzy'.\n" in message
    assert "unknown parameter 'devise'; did you mean 'device'?" in message


def test_an_unknown_parameter_in_a_file_names_the_file(tmp_path, monkeypatch):
    folder = checkout(tmp_path, monkeypatch, smoke="repetition: 3\n")
    assert f"unknown parameter 'repetition' in {folder}/smoke.yml; did you mean 'repetitions'?" in refused({})


COUNTS = [
    name for name, field in DistilbertParams.model_fields.items() if type(field.default) is int and name != "study"
]


@pytest.mark.parametrize("value", ["eight", -1, 1.5, 2.0, True, "2", [1], {}, math.nan])
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_a_whole_number(name, value):
    message = refused({"profile": "ci", name: value})
    assert message.startswith(f"{name}: {value!r} is not allowed: ")
    assert DistilbertParams.model_fields[name].description in message


def test_the_counts_are_all_here():
    assert set(COUNTS) == {
        "seed", "samples_per_cycle", "repetitions", "memory_repetitions", "warmup_cycles", "min_cycles",
        "min_iterations", "energy_windows", "num_threads",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"seed", "num_threads"}))
def test_none_of_something_is_refused(name):
    assert f"{name}: 0 is not allowed: Input should be greater than or equal to 1" in refused(
        {"profile": "ci", name: 0}
    )


@pytest.mark.parametrize(
    "value", ["eight", "0", "1,-1", "1.5", "", "[]", [], [True], [1.0], ["2x"], [1, None], -8, 0, True, {}]
)
def test_batch_sizes_are_a_list_of_whole_numbers(value):
    message = refused({"profile": "ci", "batch_sizes": value})
    assert message.startswith("batch_sizes: ")
    assert "(sentences per forward pass)" in message


@pytest.mark.parametrize("value", [[1, 1], "4,4"])
def test_a_value_given_twice_is_refused(value):
    assert "each value may be given once only" in refused({"batch_sizes": value})


@pytest.mark.parametrize("value", [True, "soon", "2", -0.1, math.inf, math.nan, [1.0]])
@pytest.mark.parametrize("name", ["min_seconds", "repetition_timeout_s"])
def test_seconds_are_a_finite_number(name, value):
    assert refused({"profile": "ci", name: value}).startswith(f"{name}: {value!r} is not allowed: ")


def test_seconds_may_be_whole_and_only_a_timeout_must_be_positive():
    assert resolve("distilbert", {"min_seconds": 0, "repetition_timeout_s": 1}).params.min_seconds == 0
    assert "greater than 0" in refused({"repetition_timeout_s": 0})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("device", "gpu", "'cpu', 'cuda' or 'cuda:N'"),
        ("device", "cuda:one", "'cpu', 'cuda' or 'cuda:N'"),
        ("device", "CUDA", "'cpu', 'cuda' or 'cuda:N'"),
        ("device", "cuda:0\n", "'cpu', 'cuda' or 'cuda:N'"),
        ("device", 0, "a valid string"),
        ("dtype", "fp16", "'float32', 'bfloat16' or 'float16'"),
        ("source", "huggingface", "'hub', 'local', 'embedded' or 'random'"),
        ("data_source", "random", "'hub', 'local' or 'embedded'"),
        (
            "variants",
            "spda",
            "'eager', 'sdpa', 'packed', 'autocast', 'compiled', 'slowed-2', 'slowed-5' or 'slowed-10'",
        ),
        ("passes", ["speed"], "'timing', 'memory' or 'energy'"),
        ("length_policies", "fixed-3", "N from 4 to 512"),
        ("length_policies", "fixed-513", "N from 4 to 512"),
        ("length_policies", "fixed", "'longest' or 'fixed-N'"),
        ("length_policies", ["fixed-32\n"], "'longest' or 'fixed-N'"),
        ("model_size", "huge", "'base', '0.5b' or 'tiny'"),
        ("run_id", "../elsewhere", "match pattern"),
        ("run_id", "a/b", "match pattern"),
        ("run_id", ".hidden", "match pattern"),
        ("run_id", "with space", "match pattern"),
        ("run_id", 2026, "a valid string"),
        ("data_path", True, "a valid string"),
    ],
)
def test_a_wrong_choice_is_refused_with_what_is_allowed(name, value, allowed):
    message = refused({"profile": "ci", name: value})
    given = value[0] if isinstance(value, list) else value
    assert message.startswith(f"{name}: {given!r} is not allowed: ")
    assert allowed in message


@pytest.mark.parametrize("policy", ["longest", "fixed-4", "fixed-512"])
def test_length_policies_at_their_limits(policy):
    assert resolve("distilbert", {"length_policies": [policy]}).params.length_policies == [policy]


def test_every_wrong_value_has_a_line_of_its_own():
    lines = refused({"profile": "ci", "seed": -1, "dtype": "int8", "batch_sizes": [0, 1, -4]}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["seed", "dtype", "batch_sizes", "batch_sizes"]
    assert "-4" in lines[-1]


def test_a_local_source_needs_its_path():
    given = {"profile": "full", "source": "local"}
    assert "model_source is 'local', so model_path must name" in refused(given | {"data_path": "x"})
    assert "data_source is 'local', so data_path must name" in refused(given | {"model_path": "x"})


def test_a_cycle_holds_at_least_eight_of_the_largest_batch():
    message = refused({"profile": "ci", "batch_sizes": [4, 64], "samples_per_cycle": 511})
    assert message.startswith("samples_per_cycle (511) must be at least 8 times the largest batch size (64): ")
    assert resolve("distilbert", {"profile": "ci", "batch_sizes": [4, 64], "samples_per_cycle": 512})


def test_cycles_of_as_many_batches_need_batches_that_cost_the_same():
    given = {"profile": "ci", "length_policies": ["fixed-16"], "batches_per_cycle": 8}
    assert resolve("distilbert", given).params.batches_per_cycle == 8
    message = refused(given | {"batches_per_cycle": 7})
    assert message == "batches_per_cycle (7) must be at least 8, so that no cache can answer"
    message = refused(given | {"length_policies": ["fixed-16", "longest"]})
    assert message.startswith(
        "batches_per_cycle needs length_policies of the kind fixed-N: at 'longest' batches differ"
    )


@pytest.mark.parametrize(("least", "most"), [("warmup_seconds", "warmup_max_seconds"), ("min_seconds", "max_seconds")])
def test_a_cap_is_not_below_its_floor(least, most):
    assert refused({least: 5.0, most: 4.0}).startswith(f"{most} (4) must not be below {least} (5)")
    assert resolve("distilbert", {least: 5.0, most: 5.0})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("seed: 1\nbatch_sizes: [1, 2\n", r"smoke\.yml is not valid YAML \(line 3\): "),
        ("seed: 1\n\tdtype: x\n", r"smoke\.yml is not valid YAML \(line 2\): "),
        ("a: b: c\n", r"smoke\.yml is not valid YAML \(line 1\): "),
        ("- 1\n- 2\n", r"smoke\.yml must hold `key: value` lines, but holds list"),
        ("just words", r"smoke\.yml must hold `key: value` lines, but holds str"),
        ("", r"smoke\.yml must hold `key: value` lines, but holds NoneType"),
        ("!!python/object/apply:os.getcwd []", r"smoke\.yml is not valid YAML"),
    ],
)
def test_yaml_that_is_none_names_file_and_line(tmp_path, monkeypatch, content, complaint):
    checkout(tmp_path, monkeypatch, smoke=content)
    with pytest.raises(ParameterError, match=complaint):
        resolve("distilbert")


def test_a_file_that_is_not_text_is_refused(tmp_path, monkeypatch):
    (checkout(tmp_path, monkeypatch) / "smoke.yml").write_bytes(b"seed: \xff\xfe")
    assert "smoke.yml is not valid YAML" in refused({})


def test_a_profile_without_a_file_is_refused(tmp_path, monkeypatch):
    folder = checkout(tmp_path, monkeypatch)
    assert refused({}) == f"there is no parameter file {folder}/smoke.yml"


# ------------------------------------------------------------------ notebooks


def test_a_notebook_gives_its_plain_values_and_nothing_else():
    namespace = {
        "study": "distilbert", "profile": "ci", "seed": 3, "device": None, "_": 1, "__name__": "__main__",
        "Out": {}, "params": parameters, "print_it": print, "PAPERMILL_OUTPUT_PATH": "x.ipynb",
    }  # fmt: skip
    resolved = studies.from_notebook(namespace)
    assert resolved.params == resolve("distilbert", {"profile": "ci", "seed": 3}).params
    assert resolved.origins["seed"] == "given"
    assert resolved.origins["device"] == "default"
    assert namespace["study"] == "distilbert", "the notebook keeps its names"


@pytest.mark.parametrize("value", ["x", 1, 1.5, True, [1], {"a": 1}, (1, 2)])
def test_a_misspelt_name_in_a_notebook_is_refused(value):
    with pytest.raises(ParameterError, match=r"unknown parameter 'repetitons'; did you mean 'repetitions'\?"):
        studies.from_notebook({"study": "distilbert", "repetitons": value})


@pytest.mark.parametrize(
    ("cells", "seed"),
    [
        (["study = 'distilbert'"], "default"),
        (["study: str = 'distilbert'\nseed: int = 42"], "given"),
        (["study = 'distilbert'", "# Parameters\nseed = 42\n"], "given"),
        (["study, seed = 'distilbert', 42"], "given"),
        (["study = 'distilbert'\nfor seed in (41, 42): pass"], "given"),
        (["study = 'distilbert'\nif (seed := 42): pass"], "given"),
        (["study = 'distilbert'", "seed = = 42"], "default"),
        (["study = 'distilbert'\ndef start():\n    seed = 42\nprint(seed)"], "default"),
    ],
)
def test_what_no_cell_assigned_is_no_parameter(cells, seed):
    """Start-up files of IPython put names into a notebook too: here `seed` and `project`."""
    startup = {"seed": 42, "project": "x", "batch_sizes": [64]}
    resolved = studies.from_notebook(startup | {"study": "distilbert", "In": ["", *cells]})
    assert resolved.origins["seed"] == seed
    assert resolved.params.seed == (42 if seed == "given" else 17)
    assert resolved.origins["batch_sizes"] != "given"


@pytest.mark.parametrize("history", [{}, {"In": [""]}])
def test_a_script_made_of_a_notebook_gives_its_values(history):
    """By python, and by ipython, which has no cells then."""
    assert studies.from_notebook(history | {"study": "distilbert", "seed": 42}).params.seed == 42


def test_a_notebook_without_a_study_is_refused():
    with pytest.raises(ParameterError, match="unknown study None"):
        studies.from_notebook({"profile": "ci"})


# ------------------------------------------------------------------ designs

OTHER_VALUES = {
    "profile": "full", "seed": 18, "device": "cuda:1", "source": "random", "model_source": "random",
    "data_source": "hub", "model_name": "x", "model_revision": "x", "model_path": "x", "model_size": "tiny",
    "dataset_name": "x", "dataset_config": "x", "dataset_split": "x", "dataset_revision": "x", "data_path": "x",
    "tokenizer_path": "x", "dtype": "float16", "variants": ["eager"], "batch_sizes": [2],
    "length_policies": ["longest"],
    "samples_per_cycle": 2000, "passes": ["timing"], "repetitions": 11, "memory_repetitions": 4, "warmup_cycles": 3,
    "min_cycles": 3, "min_seconds": 0.25, "control": True, "warmup_seconds": 0.5, "warmup_max_seconds": 7.5,
    "min_iterations": 17, "half_width": 0.5, "max_seconds": 7.5, "energy_cells": "all", "energy_windows": 6,
    "energy_window_s": 11.0, "energy_idle_s": 11.0, "modelled_power_W": 65.0, "ceiling_s": 2.0,
    "repetition_timeout_s": 7.0, "num_threads": 1, "heap": "keep", "fresh_processes": True,
    "model_family": "qwen2", "embedded_task": "intents", "batches_per_cycle": 9,
}  # fmt: skip


def design(**given) -> str:
    return resolve("distilbert", {"profile": "smoke", **given}).design_hash


def test_another_value_is_known_for_every_parameter_that_counts():
    assert set(OTHER_VALUES) == set(DistilbertParams.model_fields) - {"study"} - parameters.NOT_DESIGN


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_another_value_of_any_measured_parameter_is_another_design(name):
    base = {"length_policies": ["fixed-16"]} if name == "batches_per_cycle" else {}  # others differ in cost
    assert design(**base | {name: OTHER_VALUES[name]}) != design(**base)


def test_where_results_go_is_not_part_of_the_design(tmp_path):
    assert design(run_id="mine", results_root=str(tmp_path)) == design()


def test_the_order_of_a_list_is_part_of_the_design():
    assert design(batch_sizes=[1, 8]) != design(batch_sizes=[8, 1])


def test_ways_of_saying_the_same_are_the_same_design():
    assert design(batch_sizes="1,8", max_seconds=9, device="cuda") == design(
        batch_sizes=[1, 8], max_seconds=9.0, device="cuda:0", seed=17
    )


def test_other_code_that_measures_is_another_design(monkeypatch):
    before = design()
    monkeypatch.setattr(parameters, "DESIGN_VERSION", parameters.DESIGN_VERSION + 1)
    assert design() != before


def test_the_hash_is_the_same_in_another_process():
    """Hashes of text differ between processes unless somebody took care."""
    code = "from distilbench import studies; print(studies.resolve('distilbert', {'profile': 'smoke'}).design_hash)"
    env = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == design()
    assert len(design()) == 12
    assert int(design(), 16) >= 0


def test_a_recorded_design_resolves_to_itself():
    resolved = resolve("distilbert", {"profile": "smoke", "device": "cuda"})
    again = resolve("distilbert", resolved.params.model_dump(mode="json"))
    assert again.params == resolved.params
    assert again.design_hash == resolved.design_hash


def test_one_number_is_a_list_of_one():
    """`papermill -p batch_sizes 8` gives the number 8."""
    assert resolve("distilbert", {"batch_sizes": 8}).params.batch_sizes == [8]


def test_runs_to_compare_are_names_even_where_they_look_like_numbers():
    resolved = resolve("distilbert", {"run_ids": "20261122, latest"})
    assert resolved.params.run_ids == ["20261122", "latest"]
    assert resolved.design_hash == resolve("distilbert").design_hash, "what is compared is not what is measured"
