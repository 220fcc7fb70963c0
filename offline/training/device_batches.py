"""Training batches as tensors on the device, copied beside the running step.

Letters: B pairs of this process, C candidates of all processes, S pins read, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.network import Block
from offline.training.batches import TrainBatch


@dataclass(frozen=True)
class DeviceBatch:
    """One step's input; what is not said here is as in offline.training.batches.TrainBatch.

    x_SF    features, in the type that products are computed in
    copied  set on a GPU: when the copies are done
    """

    x_SF: Tensor
    blocks: list[Block]
    places_B: Tensor
    target_B: Tensor
    log_chance_C: Tensor
    masked_BC: Tensor
    num_hard: int
    weight: float
    copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Make the current stream wait for the copies; call it before the tensors are used."""
        if self.copied is None:
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(self.copied)
        for tensor in self._tensors():  # their memory must not be given away while this stream uses it
            tensor.record_stream(stream)

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.x_SF, self.places_B, self.target_B, self.log_chance_C, self.masked_BC)
        for block in self.blocks:
            yield from (tensor for tensor in vars(block).values() if tensor is not None)


class Copier:
    """Puts batches on the device, from any thread: on a GPU through pinned memory and a stream of their own."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: TrainBatch) -> DeviceBatch:
        """The same batch on the device."""
        if self._stream is None:
            return self._copy(batch)
        with torch.cuda.stream(self._stream):
            return self._copy(batch)

    def _copy(self, batch: TrainBatch) -> DeviceBatch:
        tensors = (
            self._move(batch.features_SF).to(self._dtype),
            [Block(*[self._move(a) for a in wiring if a is not None]) for wiring in batch.minibatch.wirings],
            self._move(batch.minibatch.places_B),
            self._move(batch.target_B),
            self._move(batch.log_chance_C.astype(np.float32)),
            self._move(batch.masked_BC),
        )
        copied = self._stream.record_event() if self._stream is not None else None
        return DeviceBatch(*tensors, num_hard=batch.num_hard, weight=batch.weight, copied=copied)

    def _move(self, array: npt.NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._stream is None else tensor.pin_memory().to(self._device, non_blocking=True)
