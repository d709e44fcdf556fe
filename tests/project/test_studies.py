"""Every study is whole: parameters, entry, notebooks, chapter. What one lacks is said by name (see CONTRIBUTING.md)."""

from __future__ import annotations

import pytest
import studied
import yaml

from distilbench import paths, studies
from distilbench.errors import ParameterError
from distilbench.runs import parameters

ROOT = paths.repo_root()


def test_parameters_and_entries_are_of_the_same_studies():
    assert set(studies.STUDIES) == set(yaml.safe_load((ROOT / "params" / "studies.yml").read_text()))


@pytest.mark.parametrize("study", studies.STUDIES)
def test_a_study_is_whole(study):
    assert studied.lacking(ROOT, study) == []


@pytest.mark.parametrize("study", studies.STUDIES)
@pytest.mark.parametrize("profile", parameters.PROFILES)
def test_its_profiles_resolve_to_its_own_model(study, profile):
    resolved = studies.resolve(study, {"profile": profile}).params
    assert type(resolved) is studies.STUDIES[study]
    assert resolved.study == study
    assert resolved.profile == profile


@pytest.mark.parametrize("study", studies.STUDIES)
def test_its_kind_is_known_and_has_what_general_code_reads(study):
    model = studies.kind_of(study).params
    assert {"device", "num_threads", "heap", "repetition_timeout_s"} - set(model.model_fields) == set()


def test_a_study_whose_kind_was_not_entered_is_told_where(monkeypatch):
    class UnknownParams(parameters.StudyParams):
        pass

    monkeypatch.setitem(studies.STUDIES, "unknown", UnknownParams)
    with pytest.raises(ParameterError, match=r"'unknown' \(UnknownParams\): add the name of its folder .* to KINDS in"):
        studies.kind_of("unknown")
