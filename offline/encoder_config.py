"""Settings of the prepare stage: how content becomes features, and where labelled pairs come from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EncoderConfig(BaseModel):
    """How wide each group of features is and what it is fitted on.

    text_dim          width of the text group (truncated SVD of tf-idf); 0 leaves the group out
    annotation_dim    width of the Word2Vec group; 0 leaves it out
    visual_dim        visual vectors wider than this are reduced by principal components
    board_dim         width of the board group (truncated SVD of the pin-board matrix); 0 leaves it out
    min_token_count   a token on fewer pins than this is not in the vocabulary
    max_vocabulary    most tokens kept, the most frequent ones
    fit_sample        most pins that anything is fitted on, drawn at random
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_dim: int = Field(256, ge=0, le=4096)
    annotation_dim: int = Field(64, ge=0, le=4096)
    visual_dim: int = Field(256, ge=1, le=4096)
    board_dim: int = Field(256, ge=0, le=4096)
    min_token_count: int = Field(2, ge=1)
    max_vocabulary: int = Field(200_000, ge=1)
    fit_sample: int = Field(1_000_000, ge=1)


class PairsConfig(BaseModel):
    """How labelled pairs are made where the data set brings none.

    session_gap        seconds; two consecutive engagements of one user further apart are no pair
    max_pairs          most pairs of all three splits together
    max_per_board      most pairs that one board gives
    valid_share        share of the users (or held-out edges) that feed the validation split
    test_share         the same for the test split
    held_out_edges     share of the edges taken out of the graph for validation and test pairs (pairs from the graph only)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_gap: int = Field(86_400, ge=0)
    max_pairs: int = Field(5_000_000, ge=1)
    max_per_board: int = Field(50, ge=1)
    valid_share: float = Field(0.1, ge=0, lt=0.5)
    test_share: float = Field(0.2, ge=0, lt=0.5)
    held_out_edges: float = Field(0.1, ge=0, lt=1)
