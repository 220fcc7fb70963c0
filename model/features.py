"""From a pin's content and boards to the input vector of the network.

One row has up to five groups, in this order, each only where the data set has it:

    text         tokens, as coordinates of a truncated SVD          pooled table
    annotations  tokens, by Word2Vec (paper 4.1)                    pooled table
    visual       the visual vector, standardised                    dense
    boards       the pin's boards, by truncated SVD of the graph    pooled table
    degree       log(1 + number of boards), standardised            dense

A pooled table sums the rows of what is known of a pin, by weight, and scales the sum to length one; where nothing is
known the group is zeros. Nothing belongs to a single pin, so a new pin is encoded exactly as an old one.

Letters: B batch rows, E entries (one token or board of one batch row), R rows of a table, D width of a group,
V width of a raw visual vector, F width of all groups together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.feature_files import load_groups, save_groups
from model.feature_groups import DegreeScale, Floats, Group, Ints, PooledTable, PopularityScale, VisualScale
from model.text import tokenize

GROUPS = ("text", "annotations", "visual", "boards", "degree", "popularity")


@dataclass(frozen=True)
class PinContent:
    """What is known of a pin besides its id.

    title, annotations, description  texts, any of them may be missing
    visual_V                         raw visual vector, or None
    boards                           rows of its boards; rows that the encoder does not know only count in the degree
    """

    title: str | None = None
    annotations: Sequence[str] = ()
    description: str | None = None
    visual_V: npt.NDArray[np.floating] | None = None
    boards: Sequence[int] | Ints = ()


@dataclass(frozen=True)
class FeatureEncoder:
    """All groups of a data set; None for those it does not have. Safe to share between threads.

    vocabulary   token -> row of the tables `text` and `annotations`
    """

    vocabulary: Mapping[str, int] = field(default_factory=dict)
    text: PooledTable | None = None
    annotations: PooledTable | None = None
    visual: VisualScale | None = None
    boards: PooledTable | None = None
    degree: DegreeScale | None = None
    popularity: PopularityScale | None = None

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The groups there are, by name, in their order."""
        named = {name: getattr(self, name) for name in GROUPS}
        return {name: group for name, group in named.items() if group is not None}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each group lies in a row."""
        stops = np.cumsum([0] + [group.dim for group in self.groups.values()]).tolist()
        return {name: slice(*ends) for name, ends in zip(self.groups, pairwise(stops), strict=True)}

    @cached_property
    def num_features(self) -> int:
        """F, the width of a row."""
        return sum(group.dim for group in self.groups.values())

    @property
    def num_prior(self) -> int:
        """How many columns, the last ones, only the popularity prior reads."""
        return 0 if self.popularity is None else self.popularity.dim

    @property
    def visual_dim(self) -> int | None:
        """V, the width that a visual vector must have; None where visual vectors are not used."""
        return None if self.visual is None else len(self.visual.mean_V)

    def encode(self, contents: Sequence[PinContent]) -> Floats:
        """(B, F) rows of these pins. Raises ValueError for a visual vector of another width or not finite.

        A pin that comes without boards has not been left aside by people, it is new: its degree is not zero but
        unknown, and the mean stands for it.
        """
        x_BF = np.zeros((len(contents), self.num_features), np.float32)
        self._fill_tokens(x_BF, contents)
        self._fill_visual(x_BF, contents)
        boards = [sorted(set(map(int, content.boards))) for content in contents]
        degrees_B = np.fromiter(map(len, boards), np.int64, len(boards))
        self.fill_graph(x_BF, degrees_B, np.array([row for each in boards for row in each], np.int64))
        self._forget_degree(x_BF, degrees_B == 0)
        return x_BF

    def with_graph(self, x_F: Floats, boards: Sequence[int] | Ints) -> Floats:
        """A copy of the row x as it is once the pin is on these boards and no others."""
        x_BF = np.array(x_F, np.float32)[None]
        rows = np.unique(np.asarray(boards, np.int64))
        self.fill_graph(x_BF, np.array([len(rows)]), rows)
        encoded: Floats = x_BF[0]
        return encoded

    def fill_graph(self, x_BF: Floats, degrees_B: Ints, boards_E: Ints) -> None:
        """Write into x the groups that come from the graph; of the popularity, how often a pin was asked for stays.

        boards_E   the distinct boards of the first row, then those of the second, …
        """
        if self.degree is not None:
            x_BF[:, self.slices["degree"]] = self.degree(degrees_B)[:, None]
        if self.popularity is not None:
            x_BF[:, self.slices["popularity"].start] = self.popularity.of_degree(degrees_B)
        if self.boards is not None:
            owners_E = np.repeat(np.arange(len(degrees_B)), degrees_B)
            known_E = (boards_E >= 0) & (boards_E < len(self.boards.weights_R))
            if not known_E.all():
                owners_E, boards_E = owners_E[known_E], boards_E[known_E]
            x_BF[:, self.slices["boards"]] = self.boards.pool(owners_E, boards_E, 1.0, len(degrees_B))

    def _forget_degree(self, x_BF: Floats, unknown_B: npt.NDArray[np.bool_]) -> None:
        if self.degree is not None:
            x_BF[unknown_B, self.slices["degree"]] = 0  # it is standardised: zero is the mean
        if self.popularity is not None:
            x_BF[unknown_B, self.slices["popularity"].start] = self.popularity.mean_share

    def fill_asked(self, x_BF: Floats, counts_B: Ints) -> None:
        """Write into x how often each pin was the related one of a training pair; a new pin's is zero."""
        if self.popularity is not None:
            x_BF[:, self.slices["popularity"].start + 1] = self.popularity.of_asked(counts_B)

    def keep_asked(self, x_F: Floats, before_F: Floats) -> None:
        """Write into the row x of a pin that is replaced how often it was asked for; `before` is its row until now."""
        if self.popularity is not None:
            column = self.slices["popularity"].start + 1
            x_F[column] = before_F[column]

    def save(self, folder: Path) -> None:
        """Write the encoder into a folder (see model.feature_files)."""
        save_groups(folder, self.vocabulary, self.groups)

    @classmethod
    def load(cls, folder: Path) -> FeatureEncoder:
        """Read an encoder; the boards' table stays on disk. Raises ReleaseError naming the file that does not fit."""
        vocabulary, groups = load_groups(folder)
        return cls(vocabulary, **groups)  # type: ignore[arg-type]

    def count_tokens(self, contents: Sequence[PinContent]) -> tuple[Ints, Ints, Ints]:
        """The distinct known tokens of each pin: batch row, row of the vocabulary, how often; sorted by both rows."""
        owners, rows = [], []
        for owner, content in enumerate(contents):
            for token in tokenize(content.title, content.description, content.annotations):
                row = self.vocabulary.get(token)
                if row is not None:
                    owners.append(owner)
                    rows.append(row)
        num_rows = max(len(self.vocabulary), 1)
        keys_E = np.array(owners, np.int64) * num_rows + np.array(rows, np.int64)
        keys_E, counts_E = np.unique(keys_E, return_counts=True)
        return keys_E // num_rows, keys_E % num_rows, counts_E

    def _fill_tokens(self, x_BF: Floats, contents: Sequence[PinContent]) -> None:
        if self.text is None and self.annotations is None:
            return
        owners_E, rows_E, counts_E = self.count_tokens(contents)
        factors_E = term_factor(counts_E)
        for name, table in (("text", self.text), ("annotations", self.annotations)):
            if table is not None:
                x_BF[:, self.slices[name]] = table.pool(owners_E, rows_E, factors_E, len(contents))

    def _fill_visual(self, x_BF: Floats, contents: Sequence[PinContent]) -> None:
        if self.visual is None:
            return
        known = [row for row, content in enumerate(contents) if content.visual_V is not None]
        if not known:
            return
        visual = [np.asarray(contents[row].visual_V, np.float32) for row in known]
        wrong = next((v for v in visual if v.shape != (self.visual_dim,)), None)
        if wrong is not None:
            raise ValueError(f"a visual vector of shape {wrong.shape}, want ({self.visual_dim},)")
        visual_BV = np.stack(visual)
        if not np.isfinite(visual_BV).all():
            raise ValueError("a visual vector has numbers that are not finite")
        x_BF[known, self.slices["visual"]] = self.visual(visual_BV)


def term_factor(counts: Ints) -> Floats:
    """How much a token counts that a pin has so many times: 1 + log tf."""
    factors: Floats = (1 + np.log(counts)).astype(np.float32)
    return factors
