"""Every setting of the offline half: defaults, presets, one TOML file, `--set section.key=value`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.config import Pooling, WalkConfig
from model.errors import UserError
from offline.inputs.encoder_config import EncoderConfig, PairsConfig

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of settings; frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WalkSection(Section):
    """How neighbourhoods are drawn (see model.config.WalkConfig)."""

    num_walks: int = Field(200, ge=1, description="random walks from each pin")
    num_hops: int = Field(2, ge=1, le=16, description="most steps pin -> board -> pin of one walk")
    restart: float = Field(0.5, ge=0, le=1, description="probability that a walk ends after a hop")
    num_neighbors: int = Field(50, ge=1, le=512, description="T, the most visited pins that are kept")

    def to_walk_config(self) -> WalkConfig:
        """The same numbers as the part of the program that is shared with the service knows them."""
        return WalkConfig(**self.model_dump())


class NetworkSection(Section):
    """The shape of the network (see model.config.NetworkConfig)."""

    hidden_dim: int = Field(512, ge=1, description="width of a message; the paper's m")
    embed_dim: int = Field(256, ge=2, description="width of an embedding; the paper's d")
    num_layers: int = Field(2, ge=0, le=4, description="K convolutions; 0 is the perceptron without a graph")
    pooling: Pooling = Field("importance", description="importance, mean or max")
    residual: bool = Field(True, description="add a linear map of the input to the output")


class TrainSection(Section):
    """How the network is trained."""

    loss: Literal["softmax", "max_margin"] = Field("softmax", description="softmax with logQ correction, or equation 1")
    epochs: int = Field(60, ge=1, description="most passes over the pairs")
    patience: int = Field(5, ge=1, description="epochs without a better validation score before training stops")
    max_minutes: float = Field(12, gt=0, description="no epoch after the first begins that would probably pass this")
    batch_size: int = Field(1024, ge=2, description="pairs in a minibatch")
    num_negatives: int = Field(500, ge=0, description="negatives shared by the whole minibatch")
    max_hard_negatives: int = Field(0, ge=0, description="curriculum: epoch n adds n-1 hard negatives, up to this many")
    hard_rank_low: float = Field(0.001, ge=0, le=1, description="hard negatives' best PageRank rank / number of pins")
    hard_rank_high: float = Field(0.01, ge=0, le=1, description="hard negatives' worst PageRank rank / number of pins")
    margin: float = Field(0.1, ge=0, description="margin of equation 1")
    temperature: float = Field(0.07, gt=0, description="start of the learned temperature of the softmax")
    learning_rate: float = Field(1e-3, gt=0, description="peak, reached linearly through the first epoch")
    decay: float = Field(0.95, gt=0, le=1, description="learning rate's factor per epoch after the first")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of message and head units left out in training")
    feature_dropout: float = Field(0.1, ge=0, lt=1, description="share of input features left out in training")
    num_neighbors: int = Field(20, ge=1, description="neighbours looked at in a minibatch, of the T there are")
    isolate: float = Field(0.1, ge=0, lt=1, description="share of pins trained as if they were on no board")
    both_directions: bool = Field(True, description="a pair also teaches from related to query")
    features: tuple[str, ...] = Field((), description="groups of features that the network looks at; none named: all")
    board_share: float = Field(
        1.0, gt=0, le=1, description="share of boards trained and validated on, with the pins they touch"
    )
    board_pairs: Share | Literal["auto"] = Field(
        "auto", description="share of training pairs that are two pins of a board; auto: as validation pairs want"
    )
    linear_start: bool = Field(True, description="start from the linear map of features that validation likes best")
    prior: bool = Field(True, description="let validation pairs decide how much popularity counts")
    max_valid_pairs: int = Field(20_000, ge=1, description="validation pairs looked at after each epoch, at most")


class EmbedSection(Section):
    """Bulk embedding."""

    chunk: int = Field(8192, ge=1, description="pins computed at a time")


class IndexSection(Section):
    """The approximate nearest-neighbour index."""

    m: int = Field(
        16, ge=2, le=128, description="links of a node; hnswlib's M; doubled, to 64 at most, where recall is low"
    )
    ef_construction: int = Field(200, ge=8, description="candidates looked at when a node is added; doubled with m")
    target_recall: float = Field(0.98, gt=0, le=1, description="recall@50 against exact search that ef is chosen for")
    related_lists: bool = Field(
        True,
        description="find the nearest pins of every pin beforehand: 0.6 KB a pin, for faster answers",
    )


class RunConfig(Section):
    """Everything that a run depends on besides its data."""

    seed: int = Field(1, ge=0, description="of every random choice")
    threads: int = Field(0, ge=0, description="processor threads; 0 takes all there are")
    walks: WalkSection = WalkSection()
    encoder: EncoderConfig = EncoderConfig()
    pairs: PairsConfig = PairsConfig()
    network: NetworkSection = NetworkSection()
    train: TrainSection = TrainSection()
    embed: EmbedSection = EmbedSection()
    index: IndexSection = IndexSection()


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Section 3 of the paper at its stated sizes, scaled down where a catalogue is small; no residual path.
    "paper": {
        "network": {"residual": False, "hidden_dim": 1024, "embed_dim": 512},
        "train": {
            "loss": "max_margin",
            "batch_size": 512,
            "max_hard_negatives": 6,
            "both_directions": False,
            "board_pairs": 0.0,
            "prior": False,
            "dropout": 0.0,
            "feature_dropout": 0.0,
            "num_neighbors": 50,
            "isolate": 0.0,
            "weight_decay": 0.0,
        },
    },
}


def load_config(preset: str = "default", file: Path | None = None, assignments: Iterable[str] = ()) -> RunConfig:
    """The preset, overridden by the TOML file, overridden by `section.key=value` assignments.

    Raises UserError naming the setting, its value, and for unknown names the nearest known one.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")
    settings = PRESETS[preset]
    if file is not None:
        settings = merged(settings, _read_toml(file))
    for assignment in assignments:
        settings = merged(settings, _parse_assignment(assignment))
    return parse_config(settings)


def parse_config(settings: dict[str, Any]) -> RunConfig:
    """Check settings. Raises UserError naming every faulty one."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError("\n".join(_explain(fault) for fault in error.errors())) from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Both, section by section; the second one wins."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def setting_names(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """All settings as `section.key`."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from setting_names(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not TOML: {error}") from None


def _parse_assignment(assignment: str) -> dict[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise UserError(f"--set {assignment}: want section.key=value, like --set train.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    nested: Any = value
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _explain(fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = list(setting_names())
        leaf = {full.rsplit(".", 1)[-1]: full for full in known}
        near = difflib.get_close_matches(name, known, 1, 0.5)
        near = near or [leaf[m] for m in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaf, 1, 0.5)]
        return f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "")
    return f"setting {name} = {fault['input']!r}: {fault['msg']}"
