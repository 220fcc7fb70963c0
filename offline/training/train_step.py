"""One step of training: the loss of a batch, its gradients, and the optimiser.

Letters: B pairs of this process, C candidates of all processes, H hard negatives of a pair, D embedding width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.losses import max_margin_loss, softmax_loss
from model.network import PinSage
from offline.config import TrainSection
from offline.training.device_batches import Copier, DeviceBatch
from offline.training.team import Team

MAX_GRADIENT_NORM = 1.0


class Trained(nn.Module):
    """The network and the softmax's temperature: everything the optimiser changes."""

    def __init__(self, network: PinSage, config: TrainSection, team: Team) -> None:
        super().__init__()
        self.network = network
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self._config, self._team = config, team

    def forward(self, batch: DeviceBatch) -> Tensor:
        """The loss of this process's pairs, weighted so that the mean over the team is that of the whole batch."""
        return batch_loss(self, batch, self._config, self._team)


class StepResult(NamedTuple):
    """The loss of a step, and the length of its gradient before it was clipped."""

    loss: float
    gradient_norm: float


class Stepper:
    """What is trained, with its optimiser.

    copy  turns a producer's batch into what `step` takes; for the producer's threads
    """

    def __init__(self, network: PinSage, config: TrainSection, team: Team) -> None:
        self._device = team.device
        self._in_bf16 = has_bf16(team.device)
        self.trained = Trained(network, config, team).to(team.device)
        self.optimizer = torch.optim.AdamW(
            self.trained.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.copy = Copier(team.device, torch.bfloat16 if self._in_bf16 else torch.float32)
        self._model = team.wrap(self.trained, all_used=config.loss == "softmax")

    def step(self, batch: DeviceBatch, rate: float) -> StepResult:
        """Change the weights by one batch; a loss that is not finite is the caller's to find."""
        batch.wait()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bf16):
            loss: Tensor = self._model(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), MAX_GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return StepResult(loss.item(), norm.item())


def batch_loss(trained: Trained, batch: DeviceBatch, config: TrainSection, team: Team) -> Tensor:
    """The loss of one batch."""
    asked = trained.network(batch.x_SF, batch.blocks)[batch.places_B]
    num_pairs, num_candidates = len(batch.target_B), len(batch.log_chance_C)
    own = team.share(num_candidates)
    end = num_pairs + own.stop - own.start
    query_BD, candidate_CD = asked[:num_pairs], team.gather(asked[num_pairs:end], num_candidates)
    target_B, masked_BC = batch.target_B, batch.masked_BC
    if config.loss == "softmax":
        temperature = trained.log_temperature.exp()
        with torch.autocast(batch.x_SF.device.type, enabled=False):
            loss = softmax_loss(query_BD, candidate_CD, target_B, batch.log_chance_C, temperature, masked_BC)
        return loss * batch.weight
    hard_BHD = asked[end:].view(num_pairs, batch.num_hard, asked.shape[1])
    # The positive is no negative of its own.
    masked_BC = masked_BC.scatter(1, target_B[:, None], True)
    loss = max_margin_loss(query_BD, candidate_CD[target_B], candidate_CD, hard_BHD, config.margin, masked_BC)
    return loss * batch.weight


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones here."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in flags and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
