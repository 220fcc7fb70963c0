"""The hidden truth of a synthetic world: its topics, the topic of each pin, and what people who like a topic pick.

Subjects hold topics, topics hold pins. Inside a topic a few pins are popular and most are not: pick number r comes with
a chance about proportional to (r + 2)^-0.7, a Zipf-Mandelbrot tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline.world.images import NUM_VARIANTS
from offline.world.vocabulary import STYLES, SUBJECTS

# Legend: P pins, T topics, N drawn numbers.

Array = npt.NDArray[Any]

TAIL_SHIFT, TAIL_POWER = 2.0, 0.3
OFF_TOPIC_SHARE, ANYWHERE_SHARE = 0.08, 0.04  # picks from a neighboring topic, and from any topic
COLD_SHARE = 0.03
MIN_TOPICS, MAX_SUBJECT_TOPICS = 6, 240


@dataclass(frozen=True)
class Topics:
    """Every topic as a subject, one of its nouns, and a style; topics of one subject lie side by side."""

    subjects_T: Array
    nouns_T: Array
    styles_T: Array
    starts: Array
    """First topic of each subject, then the number of topics."""

    def __len__(self) -> int:
        return len(self.subjects_T)

    @property
    def variants_T(self) -> Array:
        """Which form of the subject's composition draws the topic."""
        return self.nouns_T % NUM_VARIANTS

    def names(self) -> list[str]:
        """Like "mid-century chairs"."""
        columns = zip(self.subjects_T, self.nouns_T, self.styles_T, strict=True)
        return [f"{STYLES[style].name} {SUBJECTS[subject].nouns[noun]}" for subject, noun, style in columns]

    def beside(self, topics_N: Array, rng: np.random.Generator) -> Array:
        """For each topic a random one of the same subject, perhaps itself."""
        subjects = self.subjects_T[topics_N]
        low, high = self.starts[subjects], self.starts[subjects + 1]
        drawn: Array = low + (rng.random(len(topics_N)) * (high - low)).astype(np.int64)
        return drawn


@dataclass(frozen=True)
class World:
    """Topics, the pins of each one in order of popularity, and which pins are cold."""

    topics: Topics
    topic_P: Array
    ranked_P: Array
    """Pins by topic, inside a topic the most popular first."""
    starts: Array
    """Where each topic begins in `ranked_P`, then P."""
    cold_P: Array
    weights_T: Array
    """Chance of each topic to be somebody's interest."""

    @property
    def num_pins(self) -> int:
        return len(self.topic_P)

    def interests(self, num: int, rng: np.random.Generator) -> Array:
        """Three topics for each of `num` people: the first by weight, the others mostly of the same subject."""
        first = rng.choice(len(self.topics), size=num, p=self.weights_T)
        others = []
        for _ in range(2):
            anywhere = rng.choice(len(self.topics), size=num, p=self.weights_T)
            others.append(np.where(rng.random(num) < 0.7, self.topics.beside(first, rng), anywhere))
        return np.stack([first, *others], axis=1)

    def picks(self, topics_N: Array, rng: np.random.Generator) -> Array:
        """A pin for each wish for a topic: popular ones more often, and now and then one of another topic."""
        luck = rng.random(len(topics_N))
        strays = luck < OFF_TOPIC_SHARE
        topics = topics_N.copy()
        topics[strays] = self.topics.beside(topics_N[strays], rng)
        lost = luck < ANYWHERE_SHARE
        topics[lost] = rng.integers(0, len(self.topics), size=int(lost.sum()))
        sizes = self.starts[topics + 1] - self.starts[topics]
        picked: Array = self.ranked_P[self.starts[topics] + _ranks(sizes, rng)]
        return picked


def _ranks(sizes_N: Array, rng: np.random.Generator) -> Array:
    """Ranks from 0 to below `sizes`, by inverting the distribution function of the tail."""
    low = TAIL_SHIFT**TAIL_POWER
    high = (sizes_N + TAIL_SHIFT) ** TAIL_POWER
    ranks = (low + rng.random(len(sizes_N)) * (high - low)) ** (1 / TAIL_POWER) - TAIL_SHIFT
    capped: Array = np.minimum(ranks.astype(np.int64), sizes_N - 1)
    return capped


def make_world(num_pins: int, seed: int) -> World:
    """The world of a seed; about sqrt(num_pins) topics, in as many subjects as they fill."""
    rng = np.random.default_rng([seed, 0])
    topics = _make_topics(num_pins, rng)
    num_topics = len(topics)
    weights = (np.arange(num_topics) + 5.0) ** -0.5
    weights_T = rng.permutation(weights / weights.sum())
    topic_P = rng.choice(num_topics, size=num_pins, p=weights_T).astype(np.int32)
    topic_P[:num_topics] = np.arange(num_topics)  # no topic is empty
    topic_P = rng.permutation(topic_P)
    shuffled = rng.permutation(num_pins)
    ranked_P = shuffled[np.argsort(topic_P[shuffled], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(topic_P, minlength=num_topics))])
    cold_P = np.zeros(num_pins, dtype=bool)
    cold_P[rng.choice(num_pins, size=round(COLD_SHARE * num_pins), replace=False)] = True
    return World(topics, topic_P, ranked_P, starts, cold_P, weights_T)


def _make_topics(num_pins: int, rng: np.random.Generator) -> Topics:
    num_topics = max(round(0.8 * num_pins**0.5), MIN_TOPICS)
    num_subjects = min(max(round(num_topics**0.5), 3), len(SUBJECTS))
    subjects = np.sort(rng.permutation(len(SUBJECTS))[:num_subjects])
    each = min(-(-num_topics // num_subjects), MAX_SUBJECT_TOPICS)
    subjects_T = np.repeat(subjects, each)
    counts = np.bincount(subjects_T, minlength=len(SUBJECTS))
    nouns, styles = [], []
    for subject in subjects:
        num_nouns = len(SUBJECTS[subject].nouns)
        drawn = rng.permutation(num_nouns * len(STYLES))[:each]
        nouns.append(drawn % num_nouns)
        styles.append(drawn // num_nouns)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Topics(subjects_T, np.concatenate(nouns), np.concatenate(styles), starts)
