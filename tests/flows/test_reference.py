"""What memr1 tells about its own options."""

import json
import tomllib
from pathlib import Path

import pytest

from flows.reference import describe_options, list_options, render_checks, render_config, render_pages
from memr1.config import RunConfig, load_config, profile_names
from memr1.machine import Check
from memr1.run_start import flatten


def test_every_option_of_the_default_configuration_is_described() -> None:
    described = {f"{option.section.split(' (')[0]}.{option.name}".lstrip(".") for option in list_options()}
    assert set(flatten(RunConfig().model_dump(mode="json"))) <= described | {
        "extraction.generator",
        "training.judge",
        "training.lora",
    }


def test_options_of_every_variant_say_which_one_they_belong_to() -> None:
    sections = {option.section for option in list_options()}
    assert {'bank (kind = "in_memory")', 'bank (kind = "lancedb")', 'data (kind = "locomo")'} <= sections


def test_every_option_has_a_meaning_unless_it_chooses_a_variant() -> None:
    silent = [f"{option.section}.{option.name}" for option in list_options() if not option.meaning]
    assert all(name.endswith((".kind", ".algorithm")) for name in silent), silent


@pytest.mark.parametrize("profile", profile_names())
def test_a_printed_profile_is_a_file_that_gives_the_same_run(tmp_path: Path, profile: str) -> None:
    path = tmp_path / f"{profile}.toml"
    path.write_text(render_config(profile, []))
    assert load_config(str(path)) == load_config(profile)


def test_an_override_shows_in_the_printed_profile() -> None:
    tree = tomllib.loads(render_config("quickstart", ["training.lora.rank=4"]))
    assert tree["training"]["lora"] == {"rank": 4, "alpha": 32}


def test_the_description_for_the_terminal_names_the_profiles() -> None:
    assert "quickstart" in describe_options().splitlines()[0]


def test_the_doctor_shows_fixes_for_what_is_missing_only() -> None:
    text = render_checks(
        [
            Check(name="python", state="ok", found="3.11.7"),
            Check(name="C++ compiler", state="missing", found="none", fix="apt install g++"),
            Check(name="GPU", state="optional", found="none", fix="none needed"),
        ]
    )
    assert "MISSING C++ compiler  none" in text
    assert "To fix:\n  C++ compiler: apt install g++" in text
    assert "Optional:\n  GPU: none needed" in text


def test_the_generated_pages_are_fresh() -> None:
    stale = [path.name for path, text in render_pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "write them again: python -m flows.reference"


def test_defaults_in_the_pages_are_json() -> None:
    for option in list_options():
        if option.default not in ("(required)", "none"):
            json.loads(option.default)
