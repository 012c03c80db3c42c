"""CUDA IPC between two processes on one GPU: a broker with `--backend=cuda`, and this one.

Skipped without a GPU that torch can use, or without a `semshared` that can use it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_broker import RealBroker, needs_semshared
from tiny_models import make

import semshare
from semshare import Client
from semshare.client import BrokerError
from semshare.cuda_ipc import CudaTensorRegion
from semshare.hf import CachedModel
from semshare.shm import ShmError, kv_view, plane_view
from semshare.v1 import cache_broker_pb2 as pb

pytestmark = [
    needs_semshared,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    server = RealBroker(tmp_path, "--backend=cuda", "--minimum_gain=0", "--sigma_limit=0")
    try:
        server.start()
    except RuntimeError as error:
        if "UNIMPLEMENTED" not in str(error):
            raise
        pytest.skip("this semshared was built without the CUDA backend")
    with server, server.client() as connected:
        yield connected


@pytest.fixture
def cached(client: Client) -> Iterator[CachedModel]:
    model = CachedModel(make("llama").to("cuda"), client)
    yield model
    model.close()


def prompt(seed: int, length: int, vocab: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab, length).tolist()


def inline_rows(client: Client, lease_id: bytes, layers: int) -> list[list[bytes]]:
    """`[layer][plane]`: the rows of a match as they come in frames."""
    rows = [[b"", b""] for _ in range(layers)]
    for frame in client.read_kv(lease_id):
        rows[frame.layer][frame.plane] += bytes(frame.payload)
    return rows


def test_pages_of_a_tensor_are_what_inline_brings(client: Client, cached: CachedModel) -> None:
    assert client.offers_cuda_ipc()
    vocab = cached.description.spec.vocab_size
    document = prompt(1, 300, vocab)
    assert cached.store(document).error == ""
    target = prompt(2, 40, vocab) + document
    match = client.find_match(pb.FindMatchRequest(model=cached.fingerprint, token_ids=target)).match
    shapes = cached.description.shapes
    layers, heads, width = len(shapes), shapes[0][0].heads, shapes[0][0].width
    block, blocks = 16, 32
    # As vLLM has it with heads before tokens, and filled by a kernel that is still running.
    pages = torch.full((layers, 2, blocks, heads, block, width), float("nan"), device="cuda")
    region = CudaTensorRegion(pages)
    slots = [(t // block * 13 + 3) % blocks * block + t % block for t in range(len(target))]
    planes = [
        plane_view(pages[layer, plane].transpose(1, 2), region)
        for layer in range(layers)
        for plane in (0, 1)
    ]
    view = kv_view(region.register(client.shm_socket()), planes, slots)
    region.record()
    frames = client.read_kv(match.lease_id, target=view, transport=region.transport)
    assert [frame.layer for frame in frames][-1] == layers - 1
    found = pages.cpu()
    expected = inline_rows(client, match.lease_id, layers)
    matched = [
        token
        for segment in match.segments
        for token in range(segment.target_begin, segment.target_begin + segment.tokens)
    ]
    where = torch.tensor([slots[token] for token in matched])
    for layer in range(layers):
        for plane in (0, 1):
            rows = found[layer, plane][where // block, :, where % block]
            assert rows.contiguous().numpy().tobytes() == expected[layer][plane]
    # Nothing else was touched.
    untouched = torch.ones(blocks * block, dtype=torch.bool)
    untouched[where] = False
    rest = found.transpose(3, 4).reshape(layers, 2, blocks * block, heads, width)
    assert bool(torch.isnan(rest[:, :, untouched]).all())
    assert region.close()
    with pytest.raises(BrokerError, match="NOT_FOUND"):
        list(client.read_kv(match.lease_id, target=view, transport=region.transport))
    client.release(match.lease_id)


def test_the_adapter_reads_and_stores_by_cuda_ipc(client: Client, cached: CachedModel) -> None:
    vocab = cached.description.spec.vocab_size
    document = prompt(1, 300, vocab)
    stored = cached.store(document)
    assert (stored.error, stored.uploaded_tokens) == ("", 300)
    target = prompt(2, 40, vocab) + document + prompt(3, 20, vocab)
    shared = cached.prefill(target, preset="fast")
    assert (shared.report.transport, shared.report.inline_reason) == ("cuda_ipc", "")
    client._shm_socket = ""  # What a broker on another host would answer.
    inline = cached.prefill(target, preset="fast")
    assert inline.report.transport == "inline"
    assert torch.equal(inline.logits, shared.logits)
    # What was taken from the GPU while inline was forced above, and what was not, are alike.
    other = prompt(4, 300, vocab)
    assert cached.store(other).error == ""
    reused = cached.prefill(other + prompt(5, 20, vocab))
    assert reused.report.kind == "exact_prefix"


def test_the_same_memory_twice(client: Client) -> None:
    """One allocation of the driver behind two regions, as torch's small tensors have it."""
    tensors = [torch.zeros(4096, device="cuda") for _ in range(2)]
    regions = [CudaTensorRegion(tensor) for tensor in tensors]
    again = CudaTensorRegion(tensors[0])
    path = client.shm_socket()
    assert len({region.register(path) for region in [*regions, again]}) == 3
    for region in [*regions, again]:
        assert region.close()


def test_bounds_are_checked_by_the_broker(client: Client) -> None:
    region = CudaTensorRegion(torch.zeros(4096, device="cuda"))
    honest = region._hello
    # The last field is the number of bytes: more than any allocation has.
    region._hello = honest[:-8] + (1 << 50).to_bytes(8, sys.byteorder)
    with pytest.raises(ShmError, match="not within the allocation"):
        region.register(client.shm_socket())
    region._hello = honest
    assert len(region.register(client.shm_socket())) == 16
    assert region.close()


def test_memory_of_cumemcreate_is_refused() -> None:
    """In a process of its own: torch chooses its allocator once."""
    code = """
import torch
from semshare.cuda_ipc import CudaIpcError, CudaTensorRegion
tensor = torch.zeros(1 << 22, device="cuda")
try:
    CudaTensorRegion(tensor)
except CudaIpcError as error:
    assert "expandable_segments" in str(error), error
else:
    raise AssertionError("it was not refused")
"""
    environment: dict[str, Any] = {
        **os.environ,
        "PYTHONPATH": str(Path(semshare.__file__).parents[1]),
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
