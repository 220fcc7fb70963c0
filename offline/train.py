"""Training: minibatches through the network until validation stops improving (paper, section 3.3).

Letters: P pins, N pairs, B pairs of a batch, C candidates, H hard negatives of a pair, S pins read, F features,
D embedding width.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.config import NetworkConfig
from model.errors import PinsageError
from model.features import FeatureEncoder, PinContent
from model.inference import MOST_POPULAR, Inference, add_prior
from model.losses import max_margin_loss, softmax_loss
from model.network import Block, PinSage, save_network
from model.walks import Neighborhoods
from offline.batches import BatchProducer, Forgettable, TrainBatch
from offline.checkpoint import Progress, load_checkpoint, save_checkpoint
from offline.config import RunConfig, TrainSection
from offline.embed import embed_all
from offline.feature_choice import see_only
from offline.minibatches import Wiring
from offline.prior import choose_prior, validation_score
from offline.ranking import TIE, Method, cosine_scorer, related_ranks
from offline.run_folder import RunFolder
from offline.subgraph import training_inputs

Array = npt.NDArray[Any]
Report = Callable[[str, float], None]


class Trained(nn.Module):
    """The network and the softmax's temperature: everything the optimiser changes."""

    def __init__(self, network: PinSage, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))


class Trainer:
    """One training run on the arrays that the prepare stage left in RUN."""

    def __init__(self, run: RunFolder, config: RunConfig, *, num_threads: int) -> None:
        self._run, self._config, self._num_threads = run, config, num_threads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._features_PF = np.load(run.features, mmap_mode="r")
        self._neighborhoods = Neighborhoods(
            np.load(run.neighbor_ids, mmap_mode="r"), np.load(run.neighbor_weights, mmap_mode="r")
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
        if config.train.features:
            see_only(network, encoder, config.train.features)
        self._trained = Trained(network, config.train.temperature).to(self._device)
        self._optimizer = torch.optim.AdamW(
            self._trained.parameters(), config.train.learning_rate, weight_decay=config.train.weight_decay, fused=True
        )
        self._producer = self._make_producer(encoder)

    def train(self, inputs: str, report: Report) -> Progress:
        """Train, or go on from the checkpoint; leaves the best weights in RUN/train.

        Raises PinsageError when the loss is not finite or an epoch's loss is exactly zero.
        """
        config, checkpoint = self._config.train, self._run.train / "checkpoint.safetensors"
        loaded = load_checkpoint(checkpoint, self._trained, self._optimizer, inputs)
        progress, best = loaded or (Progress(inputs), self._weights())
        while self._goes_on(progress):
            started = time.monotonic()
            progress.epoch += 1
            loss = self._epoch(progress.epoch, report)
            progress.train_seconds += time.monotonic() - started
            score, hits = self._validate()
            progress.seconds += time.monotonic() - started
            progress.stale += 1
            if score > progress.best_score:
                progress.best_score, progress.best_epoch, progress.stale = score, progress.epoch, 0
                best = self._weights()
            save_checkpoint(checkpoint, self._trained, best, self._optimizer, progress)
            self._log(progress, loss, score, hits)
            report(
                f"epoch {progress.epoch}: loss {loss:.4f}, validation {score:.4f} (best {progress.best_score:.4f}),"
                f" HR@10 {hits['HR@10']:.3f}, HR@100 {hits['HR@100']:.3f}",
                min(1.0, progress.epoch / config.epochs),
            )
        self._trained.load_state_dict(best)
        save_network(self._run.train, self._trained.network)
        return progress

    def _goes_on(self, progress: Progress) -> bool:
        config = self._config.train
        return (
            progress.epoch < config.epochs
            and progress.stale < config.patience
            and progress.seconds < config.max_minutes * 60
        )

    def _epoch(self, epoch: int, report: Report) -> float:
        config, total = self._config.train, 0.0
        torch.manual_seed(self._config.seed * 1_000_003 + epoch)  # dropout is the same after a resume
        self._trained.train()
        for number, batch in enumerate(self._producer.epoch(epoch)):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch, number, self._producer.num_batches)
            loss = self._step(batch)
            if not math.isfinite(loss):
                raise PinsageError(f"training: the loss of epoch {epoch}, batch {number + 1} is {loss}; lower the rate")
            total += loss
            report(f"epoch {epoch}", (epoch - 1 + (number + 1) / self._producer.num_batches) / config.epochs)
        if total == 0:
            raise PinsageError(f"training: the loss of epoch {epoch} is exactly zero: nothing is left to learn from")
        return total / self._producer.num_batches

    def _step(self, batch: TrainBatch) -> float:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=has_bf16(self._device)):
            loss = batch_loss(self._trained, batch, self._config.train, self._device)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._trained.parameters(), 1.0)
        self._optimizer.step()
        return loss.item()

    def _validate(self) -> tuple[float, dict[str, float]]:
        """The validation score and hit-rates of the whole catalogue's embeddings, computed as the embed stage does."""
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
            self._features_PF,
            self._neighborhoods,
            messages_path=lambda layer: folder / f"messages_{layer}.npy",
            vectors_path=folder / "vectors.npy",
            chunk=self._config.embed.chunk,
            num_threads=self._num_threads,
            progress=lambda phase, share: None,
        )
        vectors_PD: Array = np.load(folder / "vectors.npy", mmap_mode="r")
        if network.prior is None or not self._config.train.prior:
            return vectors_PD
        prior_P2 = np.asarray(self._features_PF[:, network.config.num_inputs :])
        rng = np.random.default_rng(self._config.seed)
        bias, weight = choose_prior(vectors_PD[:, :-1], prior_P2, self._valid_N2, rng)
        network.prior.bias.fill_(bias)
        network.prior.weight.copy_(torch.from_numpy(weight))
        return add_prior(vectors_PD[:, :-1], (bias + prior_P2 @ weight).clip(0, MOST_POPULAR).astype(np.float32))

    def _choose_valid_pairs(self) -> Array:
        """The validation pairs; where there are none, a tenth of the training pairs is looked at instead."""
        config, rng = self._config, np.random.default_rng(self._config.seed)
        path = self._run.pairs("valid")
        pairs_N2: Array = np.load(path) if path.exists() else np.empty((0, 2), np.int32)
        if not len(pairs_N2):
            pairs_N2 = np.load(self._run.pairs("train"))
            pairs_N2 = pairs_N2[rng.permutation(len(pairs_N2))[: max(1, len(pairs_N2) // 10)]]
        return pairs_N2[rng.permutation(len(pairs_N2))[: config.train.max_valid_pairs]]

    def _make_producer(self, encoder: FeatureEncoder) -> BatchProducer:
        inputs = training_inputs(
            self._run, self._config, self._features_PF, self._neighborhoods, num_threads=self._num_threads
        )
        return BatchProducer(
            inputs.pairs_N2,
            inputs.features,
            inputs.neighborhoods,
            inputs.graph,
            self._config.train,
            num_layers=self._config.network.num_layers,
            forgettable=forgettable_features(encoder),
            seed=self._config.seed,
            num_threads=self._num_threads,
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._trained.state_dict().items()}

    def _log(self, progress: Progress, loss: float, score: float, hits: dict[str, float]) -> None:
        line: dict[str, Any] = {**asdict(progress), "batches": self._producer.num_batches, "loss": loss}
        line |= {"score": score, **hits}
        prior = self._trained.network.prior
        if prior is not None:
            line["prior"] = [prior.bias.item(), *prior.weight.tolist()]
        line["temperature"] = self._trained.log_temperature.exp().item()
        with (self._run.train / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def batch_loss(trained: Trained, batch: TrainBatch, config: TrainSection, device: torch.device) -> Tensor:
    """The loss of one batch."""
    blocks = [to_block(wiring, device) for wiring in batch.minibatch.wirings]
    x_SF = torch.from_numpy(batch.features_SF).to(device)
    if torch.is_autocast_enabled(device.type):  # once, and not before each product
        x_SF = x_SF.to(torch.get_autocast_dtype(device.type))
    asked = trained.network(x_SF, blocks)[batch.minibatch.places_B]
    num_pairs, num_candidates = len(batch.target_B), len(batch.log_chance_C)
    query_BD, candidate_CD = asked[:num_pairs], asked[num_pairs : num_pairs + num_candidates]
    target_B = torch.from_numpy(batch.target_B).to(device)
    masked_BC = torch.from_numpy(batch.masked_BC).to(device)
    if config.loss == "softmax":
        log_chance_C = torch.from_numpy(batch.log_chance_C).float().to(device)
        with torch.autocast(device.type, enabled=False):
            return softmax_loss(
                query_BD, candidate_CD, target_B, log_chance_C, trained.log_temperature.exp(), masked_BC
            )
    hard_BHD = asked[num_pairs + num_candidates :].view(num_pairs, batch.num_hard, asked.shape[1])
    masked_BC[torch.arange(num_pairs), target_B] = True  # the positive is no negative of its own
    return max_margin_loss(query_BD, candidate_CD[target_B], candidate_CD, hard_BHD, config.margin, masked_BC)


def to_block(wiring: Wiring, device: torch.device) -> Block:
    """The same wiring on the device."""
    return Block(*[torch.from_numpy(array).to(device) for array in wiring if array is not None])


def learning_rate(config: TrainSection, epoch: int, batch: int, num_batches: int) -> float:
    """Linear from zero to the peak through the first epoch, then exponential decay (paper, section 3.3)."""
    passed = epoch - 1 + (batch + 1) / num_batches
    return config.learning_rate * (passed if passed <= 1 else config.decay ** (passed - 1))


def forgettable_features(encoder: FeatureEncoder) -> Forgettable:
    """The feature columns that boards decide, and their values for a pin on no board."""
    names = [name for name in ("boards", "degree") if name in encoder.slices]
    columns = [np.arange(encoder.num_features)[encoder.slices[name]] for name in names]
    empty = PinContent(title=None, annotations=(), description=None, visual_V=None, boards=())
    chosen: Array = np.concatenate(columns) if columns else np.empty(0, np.int64)
    return Forgettable(chosen, encoder.encode([empty])[0][chosen])


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones here."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in flags and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
