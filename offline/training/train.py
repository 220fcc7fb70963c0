"""Training: minibatches through the network until validation stops improving (paper, section 3.3).

Letters: P pins, N pairs, F features, D embedding width.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.config import NetworkConfig
from model.errors import PinsageError
from model.features import FeatureEncoder, PinContent
from model.halves import floats_of
from model.inference import MOST_POPULAR, Inference, add_prior
from model.network import PinSage, save_network
from model.walks import Neighborhoods
from offline.config import RunConfig, TrainSection
from offline.embedding.embed import embed_all
from offline.evaluation.ranking import TIE, Method, cosine_scorer, related_ranks
from offline.run_folder import RunFolder
from offline.training.batches import BatchProducer, Forgettable
from offline.training.board_pairs import fit_share
from offline.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from offline.training.feature_choice import see_only
from offline.training.linear_start import choose_start
from offline.training.prior import choose_prior, validation_score
from offline.training.subgraph import training_inputs
from offline.training.team import Team, alone
from offline.training.train_step import Stepper

Array = npt.NDArray[Any]
Report = Callable[[str, float], None]


class Trainer:
    """One training run on the arrays that the prepare stage left in RUN; in a team, one process's part of it."""

    def __init__(self, run: RunFolder, config: RunConfig, *, num_threads: int, team: Team | None = None) -> None:
        self._run, self._config, self._num_threads, self._team = run, config, num_threads, team or alone()
        self._part = run.train / f"subgraph_{self._team.rank}"
        self._inputs = training_inputs(
            run,
            config,
            np.load(run.features, mmap_mode="r"),
            Neighborhoods(np.load(run.neighbor_ids, mmap_mode="r"), np.load(run.neighbor_weights, mmap_mode="r")),
            num_threads=num_threads,
            folder=self._part,
        )
        self._valid_N2 = self._choose_valid_pairs()
        torch.set_num_threads(num_threads)
        torch.manual_seed(config.seed)
        encoder = FeatureEncoder.load(run.encoder)
        shape = NetworkConfig(num_features=encoder.num_features, **config.network.model_dump())
        network = PinSage(
            replace(shape, num_prior=encoder.num_prior),
            dropout=config.train.dropout,
            feature_dropout=config.train.feature_dropout,
        )
        self._directions = directions(encoder, config.train.features)
        if config.train.features:
            see_only(network, encoder, config.train.features)
        self._stepper = Stepper(network, config.train, self._team)
        self._trained, self._optimizer = self._stepper.trained, self._stepper.optimizer
        self._board_pairs = self._choose_board_pairs()
        self._producer = self._make_producer(encoder)

    def train(self, inputs: str, report: Report) -> Progress:
        """Train, or go on from the checkpoint; leaves the best weights in RUN/train.

        Raises PinsageError when the loss is not finite or an epoch's loss is exactly zero.
        """
        config, checkpoint = self._config.train, self._run.train / "checkpoint.safetensors"
        loaded = load_checkpoint(checkpoint, self._trained, self._optimizer, inputs)
        progress, best = loaded or self._start(inputs, report)
        self._team.align(self._trained)
        while self._goes_on(progress):
            started = time.monotonic()
            progress.epoch += 1
            speed = self._epoch(progress.epoch, report)
            progress.train_seconds += time.monotonic() - started
            score, hits = self._validate() if self._team.leads else (0.0, {})
            score, seconds = self._team.agree(score, time.monotonic() - started)
            progress.seconds += seconds
            progress.stale += 1
            if score > progress.best_score:
                progress.best_score, progress.best_epoch, progress.stale = score, progress.epoch, 0
                best = self._weights()
            if self._team.leads:
                save_checkpoint(checkpoint, self._trained, best, self._optimizer, progress)
                self._log(progress, speed, score, hits)
                report(
                    f"epoch {progress.epoch}: loss {speed['loss']:.4f}, validation {score:.4f} (best"
                    f" {progress.best_score:.4f}), HR@10 {hits['HR@10']:.3f}, HR@100 {hits['HR@100']:.3f}",
                    min(1.0, progress.epoch / config.epochs),
                )
        if self._team.leads:
            self._trained.load_state_dict(best)
            save_network(self._run.train, self._trained.network)
        shutil.rmtree(self._part, ignore_errors=True)
        return progress

    def _start(self, inputs: str, report: Report) -> tuple[Progress, dict[str, Tensor]]:
        """Epoch zero: the residual path is the best linear map of the features, and training has to beat it."""
        progress, network = Progress(inputs), self._trained.network
        if network.residual is None or not self._config.train.linear_start:
            return progress, self._weights()
        report(f"choosing the linear start; {self._board_pairs:.0%} of the pairs will come from boards", 0.0)
        start = choose_start(
            self._inputs.features_PF,
            network.config.num_inputs,
            self._prior_P2 if network.prior is not None and self._config.train.prior else None,
            self._directions,
            self._valid_N2,
            network.config.learned_dim,
            np.random.default_rng(self._config.seed),
        )
        if start is None:
            return progress, self._weights()
        with torch.no_grad():
            network.residual.weight.copy_(torch.from_numpy(start.weight_DF))
            network.residual.bias.copy_(torch.from_numpy(start.bias_D))
        score, hits = self._validate() if self._team.leads else (0.0, {})
        progress.best_score, _ = self._team.agree(score, 0.0)
        if self._team.leads:
            self._log(progress, {}, score, hits)
            said = ", ".join(f"{name} x {weight:g}" for name, weight in start.groups.items())
            report(f"linear start ({said}): validation {score:.4f}, HR@10 {hits['HR@10']:.3f}", 0.0)
        return progress, self._weights()

    def _goes_on(self, progress: Progress) -> bool:
        """Whether there is an epoch to come, as long as those before it; a first one there is always."""
        config = self._config.train
        return (
            progress.epoch < config.epochs
            and progress.stale < config.patience
            and progress.seconds * (1 + 1 / max(1, progress.epoch)) <= config.max_minutes * 60
        )

    def _epoch(self, epoch: int, report: Report) -> dict[str, float]:
        """Mean loss, mean and largest length of the gradient, and pairs a second."""
        config, num_batches, started = self._config.train, self._producer.num_batches, time.monotonic()
        # Dropout is the same after a resume, and another one in every process.
        torch.manual_seed((self._config.seed * 1_000_003 + epoch) * 1_009 + self._team.rank)
        self._trained.train()
        losses, norms = [], []
        for number, batch in enumerate(self._producer.epoch(epoch, self._stepper.copy)):
            loss, norm = self._stepper.step(batch, learning_rate(config, epoch, number, num_batches))
            if not math.isfinite(loss):
                raise PinsageError(f"training: the loss of epoch {epoch}, batch {number + 1} is {loss}; lower the rate")
            losses.append(loss)
            norms.append(norm)
            report(f"epoch {epoch}", (epoch - 1 + (number + 1) / num_batches) / config.epochs)
        if not any(losses):
            raise PinsageError(f"training: the loss of epoch {epoch} is exactly zero: nothing is left to learn from")
        return {
            "loss": self._team.mean(float(np.mean(losses))),
            "gradient_norm": float(np.mean(norms)),
            "max_gradient_norm": max(norms),
            "pairs_per_second": round(self._producer.num_pairs / (time.monotonic() - started), 1),
        }

    def _validate(self) -> tuple[float, dict[str, float]]:
        """The validation score and hit-rates among all pins trained on, embedded as the embed stage does."""
        self._trained.eval()
        with tempfile.TemporaryDirectory(dir=self._run.train) as folder:
            vectors_PD = self._embed_all(Path(folder))
        by_cosine = Method(cosine_scorer(vectors_PD, vectors_PD), tie=TIE)
        query_N, related_N = self._valid_N2.T
        ranks_N = related_ranks(by_cosine, query_N, related_N, len(vectors_PD), threads=self._num_threads)
        hits = {f"HR@{k}": float((ranks_N <= k).mean()) for k in (10, 100, 500)}
        return validation_score(ranks_N), hits

    def _embed_all(self, folder: Path) -> Array:
        """(P, D) embeddings of all pins with the weights of now, and the prior that suits them best."""
        network = self._trained.network
        if network.prior is not None:
            network.prior.weight.zero_()
            network.prior.bias.zero_()
        weights = {name: w.float().cpu().numpy() for name, w in network.state_dict().items()}
        inference = Inference(network.config, weights)
        embed_all(
            inference,
            self._inputs.features_PF,
            self._inputs.neighborhoods,
            messages_path=lambda layer: folder / f"messages_{layer}.npy",
            vectors_path=folder / "vectors.npy",
            chunk=self._config.embed.chunk,
            num_threads=self._num_threads,
            progress=lambda phase, share: None,
        )
        vectors_PD: Array = np.load(folder / "vectors.npy", mmap_mode="r")
        if network.prior is None or not self._config.train.prior:
            return vectors_PD
        rng = np.random.default_rng(self._config.seed)
        bias, weight = choose_prior(vectors_PD[:, :-1], self._prior_P2, self._valid_N2, rng)
        network.prior.bias.fill_(bias)
        network.prior.weight.copy_(torch.from_numpy(weight))
        return add_prior(vectors_PD[:, :-1], (bias + self._prior_P2 @ weight).clip(0, MOST_POPULAR).astype(np.float32))

    @cached_property
    def _prior_P2(self) -> Array:
        """What the popularity prior reads."""
        return floats_of(self._inputs.features_PF[:, self._trained.network.config.num_inputs :])

    def _choose_valid_pairs(self) -> Array:
        """The validation pairs; where there are none, a tenth of the training pairs is looked at instead."""
        config, rng = self._config, np.random.default_rng(self._config.seed)
        path = self._run.pairs("valid")
        pairs_N2 = self._inputs.inside(np.load(path) if path.exists() else np.empty((0, 2), np.int32))
        if not len(pairs_N2):
            pairs_N2 = self._inputs.pairs_N2
            pairs_N2 = pairs_N2[rng.permutation(len(pairs_N2))[: max(1, len(pairs_N2) // 10)]]
        return pairs_N2[rng.permutation(len(pairs_N2))[: config.train.max_valid_pairs]]

    def _choose_board_pairs(self) -> float:
        """The share of training pairs that boards give."""
        share = self._config.train.board_pairs
        if share != "auto":
            return share
        return fit_share(self._inputs.pairs_N2, self._valid_N2, self._inputs.graph)

    def _make_producer(self, encoder: FeatureEncoder) -> BatchProducer:
        return BatchProducer(
            self._inputs.pairs_N2,
            self._inputs.features_PF,
            self._inputs.neighborhoods,
            self._inputs.graph,
            self._config.train,
            num_layers=self._config.network.num_layers,
            forgettable=forgettable_features(encoder),
            board_pairs=self._board_pairs,
            seed=self._config.seed,
            num_threads=self._num_threads,
            num_ahead=1 if self._team.device.type == "cpu" else min(8, self._num_threads),
            team=self._team,
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._trained.state_dict().items()}

    def _log(self, progress: Progress, speed: dict[str, float], score: float, hits: dict[str, float]) -> None:
        line: dict[str, Any] = {**asdict(progress), "batches": self._producer.num_batches, **speed}
        line |= {"score": score, **hits, "board_pairs": round(self._board_pairs, 3)}
        prior = self._trained.network.prior
        if prior is not None:
            line["prior"] = [prior.bias.item(), *prior.weight.tolist()]
        line["temperature"] = self._trained.log_temperature.exp().item()
        with (self._run.train / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def learning_rate(config: TrainSection, epoch: int, batch: int, num_batches: int) -> float:
    """Linear from zero to the peak through the first epoch, then exponential decay (paper, section 3.3)."""
    passed = epoch - 1 + (batch + 1) / num_batches
    return config.learning_rate * (passed if passed <= 1 else config.decay ** (passed - 1))


def directions(encoder: FeatureEncoder, chosen: Sequence[str]) -> dict[str, slice]:
    """The groups of features that point somewhere (a degree is a size), of all or of the chosen ones."""
    return {
        name: columns
        for name, columns in encoder.slices.items()
        if name not in ("degree", "popularity") and (not chosen or name in chosen)
    }


def forgettable_features(encoder: FeatureEncoder) -> Forgettable:
    """The feature columns that boards decide, and their values for a pin on no board."""
    names = [name for name in ("boards", "degree") if name in encoder.slices]
    columns = [np.arange(encoder.num_features)[encoder.slices[name]] for name in names]
    empty = PinContent(title=None, annotations=(), description=None, visual_V=None, boards=())
    chosen: Array = np.concatenate(columns) if columns else np.empty(0, np.int64)
    return Forgettable(chosen, encoder.encode([empty])[0][chosen])
