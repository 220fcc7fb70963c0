"""What threads of one machine and executors of a cluster share: one step of bulk embedding on any block of pins.

Step 0 turns features into the first messages. Step k > 0 pools the messages of step k - 1 and convolves; the last step
ends in the head, the others in the next messages. So every latent and every message is computed once per pin.

Letters: B pins of the block, F features, H width of a latent, M message width, D embedding width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import PinsageError
from model.halves import finite_rows, to_halves
from model.inference import Inference
from model.walks import Neighborhoods
from offline.embedding.partial_arrays import Column
from offline.run_folder import RunFolder, fingerprint

Array = npt.NDArray[Any]


def read_inputs(run: RunFolder) -> tuple[Inference, Array, Neighborhoods]:
    """Network, memory-mapped features (P, F) and memory-mapped neighbourhoods of a trained run."""
    ids_PT, weights_PT = np.load(run.neighbor_ids, mmap_mode="r"), np.load(run.neighbor_weights, mmap_mode="r")
    return Inference.load(run.train), np.load(run.features, mmap_mode="r"), Neighborhoods(ids_PT, weights_PT)


def inputs_hash(run: RunFolder) -> str:
    """Hash of all that the embeddings depend on: the network itself, sizes and times of the large files."""
    network = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (run.weights, run.network)]
    large = [path.stat() for path in (run.features, run.neighbor_ids, run.neighbor_weights)]
    return fingerprint(network, [(stat.st_size, stat.st_mtime_ns) for stat in large])


@dataclass(frozen=True)
class Stepped:
    """What a step gives for B pins.

    latent_BH  what the next step convolves; the features after step 0
    output_B   float16 messages (B, M), or at the last step float32 unit vectors (B, D)
    """

    latent_BH: Array
    output_B: Array


def take_step(inference: Inference, step: int, x_BF: Array, latent_BH: Array, pooled_BM: Array | None) -> Stepped:
    """What a step gives, from features, the latents before it and the pooled messages (B, M) of the step before.

    Step 0 has no messages to pool, and there the latents are the features; so they are at step 1.
    """
    if pooled_BM is not None:
        latent_BH = inference.combine(step - 1, latent_BH, pooled_BM)
    if step < inference.config.num_layers:
        return Stepped(latent_BH, to_halves(inference.message(step, latent_BH)))
    return Stepped(latent_BH, inference.head(latent_BH, x_BF))


def check_finite(output_B: Array, rows_B: Array) -> None:
    """Raise PinsageError naming the first pin, by its row, whose output is not finite, or too large for float16."""
    finite_B = finite_rows(output_B) if output_B.dtype == np.float16 else np.isfinite(output_B).all(1)
    if not finite_B.all():
        raise PinsageError(f"embedding: what pin {rows_B[finite_B.argmin()]} gets is not finite")


def output_column(inference: Inference, step: int) -> Column:
    """Width and type of what the step gives: messages, or vectors at the last step."""
    config = inference.config
    if step < config.num_layers:
        return Column(config.hidden_dim, np.dtype(np.float16))
    return Column(config.embed_dim, np.dtype(np.float32))
