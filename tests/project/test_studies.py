"""Every study is whole: parameters, entry, notebooks, chapter. What one lacks is said by name (see CONTRIBUTING.md)."""

from __future__ import annotations

import pytest
import studied
import yaml

from distilbench import paths, studies
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
