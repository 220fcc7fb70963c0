"""What importers hold back from training: cold pins, a part of the pairs, a part of some users' pins."""

from __future__ import annotations

import numpy as np
import polars as pl

ENDS = ("query_pin_id", "related_pin_id")
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


def draw_cold_pins(
    engagements: pl.DataFrame, pins: pl.DataFrame, rng: np.random.Generator, *, share: float = 0.05, min_edges: int = 3
) -> pl.DataFrame:
    """Pins to keep out of training (a column pin_id, in the order of `pins`): `share` of all, each on enough boards."""
    degrees = engagements.group_by("pin_id").len()
    known = pins.select("pin_id").join(degrees, on="pin_id", how="left", maintain_order="left")
    candidates = known.filter(pl.col("len") >= min_edges).select("pin_id")
    num_cold = min(round(share * pins.height), candidates.height)
    drawn = np.sort(rng.choice(candidates.height, size=num_cold, replace=False))
    return candidates[drawn]


def split_cold(table: pl.DataFrame, cold: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows without a cold pin and those of cold pins, by the column pin_id."""
    warm = table.join(cold, on="pin_id", how="anti", maintain_order="left")
    return warm, table.join(cold, on="pin_id", how="semi", maintain_order="left")


def split_cold_pairs(pairs: pl.DataFrame, cold: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs without a cold end, and those with one, turned so that the cold pin asks; pairs of two are dropped."""
    query, related = (pl.col(end).is_in(cold["pin_id"].implode()) for end in ENDS)
    marked = pairs.with_columns(query_is_cold=query, related_is_cold=related)
    warm = marked.filter(~pl.col("query_is_cold") & ~pl.col("related_is_cold")).select(pairs.columns)
    one = marked.filter(pl.col("query_is_cold") != pl.col("related_is_cold"))
    first, second = (pl.when("query_is_cold").then(a).otherwise(b) for a, b in (ENDS, ENDS[::-1]))
    turned = one.select(first.alias(ENDS[0]), second.alias(ENDS[1]))
    return warm.select(pairs.columns), turned.unique(maintain_order=True)


def split_shuffled(pairs: pl.DataFrame, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """The pairs shuffled and cut into pairs_train, pairs_valid and pairs_test: 70, 10 and 20 %."""
    shuffled = pairs[rng.permutation(pairs.height)]
    first, second = round(SHARES["train"] * pairs.height), round((SHARES["train"] + SHARES["valid"]) * pairs.height)
    return {
        "pairs_train": shuffled[:first],
        "pairs_valid": shuffled[first:second],
        "pairs_test": shuffled[second:],
    }


def part_users(weights: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """board_id -> part ("train", "valid", "test"), drawn so that the weights (column `len`) fall about 70/10/20."""
    shuffled = weights[rng.permutation(weights.height)]
    share = (pl.col("len").cum_sum() - pl.col("len") / 2) / pl.col("len").sum()
    valid_or_test = pl.when(share < SHARES["train"] + SHARES["valid"]).then(pl.lit("valid")).otherwise(pl.lit("test"))
    part = pl.when(share < SHARES["train"]).then(pl.lit("train")).otherwise(valid_or_test)
    return shuffled.select("board_id", part=part)


def without_repeats(pairs: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The splits, each pair once inside a split and in no later split again, either way round."""
    seen = pl.DataFrame(schema=dict.fromkeys(ENDS, pl.String))
    result = {}
    for name, table in pairs.items():
        kept = table.unique(maintain_order=True).join(seen, on=list(ENDS), how="anti", maintain_order="left")
        turned = kept.select(kept[ENDS[1]].alias(ENDS[0]), kept[ENDS[0]].alias(ENDS[1]))
        seen = pl.concat([seen, kept, turned])
        result[name] = kept
    return result


def hold_out(
    edges: pl.DataFrame, rng: np.random.Generator, *, share: float = 0.2, min_pins: int = 10
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Edges that stay, and users_test: `share` of the users with enough pins lose `share` of their pins."""
    sizes = edges.group_by("board_id", maintain_order=True).len().filter(pl.col("len") >= min_pins)
    users = sizes[np.sort(rng.choice(sizes.height, size=round(share * sizes.height), replace=False))]
    drawn = edges.with_row_index("edge").join(users, on="board_id", how="inner", maintain_order="left")
    ranked = drawn.with_columns(luck=rng.random(drawn.height))
    is_held = pl.col("luck").rank("ordinal").over("board_id") <= (share * pl.col("len")).round().cast(pl.Int64)
    ranked = ranked.with_columns(held=is_held)
    users_test = ranked.group_by(pl.col("board_id").alias("user_id"), maintain_order=True).agg(
        history=pl.col("pin_id").filter(~pl.col("held")), held_out=pl.col("pin_id").filter("held")
    )
    held = ranked.filter("held").select("edge")
    left = edges.with_row_index("edge").join(held, on="edge", how="anti", maintain_order="left")
    return left.drop("edge"), users_test
