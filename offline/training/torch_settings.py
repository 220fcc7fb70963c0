"""Settings of the libraries below torch, which they read when torch is imported."""

from __future__ import annotations

import os


def set_before_torch() -> None:
    """Set them, where the user has not; call it before anything imports torch.

    Threads that wait must not spin, on cores that the producer of batches could use. And oneDNN keeps a buffer as long
    as the batch with every shape of a product that it has met, a thousand of them: but every batch has other shapes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
