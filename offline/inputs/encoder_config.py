"""Settings of the prepare stage: how content becomes features, and where labelled pairs come from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EncoderConfig(BaseModel):
    """How wide each group of features is and what it is fitted on. Widths are cut to the rank of the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_dim: int = Field(
        default=512, ge=0, le=4096, description="width of the text group (SVD of tokens); 0 leaves it out"
    )
    annotation_dim: int = Field(default=64, ge=0, le=4096, description="width of the Word2Vec group; 0 leaves it out")
    visual_dim: int = Field(
        default=256, ge=0, le=4096, description="wider visual vectors go to principal components; 0: left out"
    )
    board_dim: int = Field(
        default=512, ge=0, le=4096, description="width of the board group (SVD of the graph); 0 leaves it out"
    )
    min_token_count: int = Field(default=2, ge=1, description="a token on fewer pins than this is not known")
    max_vocabulary: int = Field(default=200_000, ge=1, description="most tokens known, the most frequent ones")
    fit_sample: int = Field(default=1_000_000, ge=1, description="most pins that anything is fitted on")


class PairsConfig(BaseModel):
    """How labelled pairs are made where the data set brings none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_gap: int = Field(
        default=86_400, ge=0, description="seconds; consecutive engagements further apart are no pair"
    )
    valid_share: float = Field(default=0.1, gt=0, lt=0.5, description="share of the validation split")
    test_share: float = Field(default=0.2, gt=0, lt=0.5, description="share of the test split")
    max_pairs: int = Field(default=5_000_000, ge=1, description="most pairs of the three splits together")
    max_per_board: int = Field(default=50, ge=1, description="most pairs that one board gives")
    held_out_edges: float = Field(
        default=0.1, gt=0, lt=0.5, description="share of edges kept out of the graph for valid and test pairs"
    )
