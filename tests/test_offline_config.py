"""Settings: where values come from, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import UserError
from offline.config import PRESETS, load_config, setting_names


def test_assignments_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("seed = 7\n[train]\nepochs = 5\nmargin = 0.2\n")
    config = load_config("paper", file, ["train.epochs=3"])
    assert (config.seed, config.train.epochs, config.train.margin, config.train.loss) == (7, 3, 0.2, "max_margin")


def test_a_bare_word_is_a_string() -> None:
    assert load_config(assignments=["train.loss=max_margin"]).train.loss == "max_margin"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=3", r"unknown setting train\.epoch; did you mean train\.epochs\?"),
        ("walk.num_walks=3", r"unknown setting walk; did you mean walks\.num_walks|unknown setting walk"),
        ("epochs=3", r"unknown setting epochs; did you mean train\.epochs\?"),
        ("train.epochs=many", r"setting train\.epochs = 'many'"),
        ("train.epochs=0", r"setting train\.epochs = 0: .*greater than or equal to 1"),
        ("train.epochs", r"want section\.key=value"),
        ("=3", r"want section\.key=value"),
    ],
)
def test_a_wrong_setting_is_named(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(assignments=[assignment])


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[train]\nepochs = 0\n[walks]\nrestart = 2\n")
    with pytest.raises(UserError, match=r"(?s)walks\.restart.*train\.epochs|train\.epochs.*walks\.restart"):
        load_config(file=file)


def test_a_missing_file_and_one_that_is_not_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.toml: cannot be read"):
        load_config(file=tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("train = [")
    with pytest.raises(UserError, match=r"broken\.toml: not TOML"):
        load_config(file=tmp_path / "broken.toml")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert load_config(preset).seed == 1


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="default, paper"):
        load_config("papre")


def test_every_setting_has_a_dotted_name() -> None:
    assert {"seed", "walks.num_walks", "encoder.text_dim", "train.epochs"} <= set(setting_names())
