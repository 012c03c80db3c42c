"""Shared memory between this process and a real broker."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import start_server
from tiny_models import make

from semshare import Client
from semshare.client import BrokerError
from semshare.hf import CachedModel
from semshare.hf.cache import KvCache
from semshare.hf.pool import KvPool
from semshare.shm import SharedBuffer, ShmError, kv_view, plane_view, plane_views
from semshare.v1 import cache_broker_pb2 as pb

BINARY = os.environ.get("SEMSHARE_SEMSHARED", "")
needs_broker = pytest.mark.skipif(not BINARY, reason="SEMSHARE_SEMSHARED names no broker")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Any, Client]]:
    process, address_file = start_server(BINARY, tmp_path)
    try:
        with Client.from_address_file(address_file) as client:
            yield process, client
    finally:
        process.kill()
        process.wait(timeout=20)


def prompt(seed: int, length: int, vocab: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab, length).tolist()


def test_views_describe_arrays_by_their_strides() -> None:
    buffer = SharedBuffer(1 << 16)
    floats = buffer.array.view(np.float32)
    rows = floats[64 : 64 + 10 * 2 * 8].reshape(10, 2, 8)
    view = plane_view(rows, buffer)
    assert (view.offset, view.bytes, view.block_tokens) == (256, 640, 1)
    assert (view.block_stride, view.head_stride, view.element_stride) == (64, 32, 4)
    # [block, head, token, element] as an engine has it, asked for as [block, token, head, element].
    pages = floats[: 4 * 2 * 16 * 8].reshape(4, 2, 16, 8).transpose(0, 2, 1, 3)
    view = plane_view(pages, buffer)
    assert (view.block_tokens, view.block_stride, view.token_stride) == (16, 1024, 32)
    assert (view.head_stride, view.element_stride, view.bytes) == (512, 4, 4096)
    tensor = torch.from_numpy(floats).view(torch.bfloat16)[: 10 * 2 * 8].view(10, 2, 8)
    assert plane_view(tensor, buffer).element_stride == 2
    for bad in (rows[0], rows[::-1], np.zeros((10, 2, 8), np.float32), rows[:0]):
        with pytest.raises(ValueError, match=r"a plane|the plane"):
            plane_view(bad, buffer)


def test_a_retired_slab_is_never_reused() -> None:
    pool = KvPool()
    first = pool.take(1000)
    address = first.tensor.data_ptr()
    first.buffer.retire()
    kept = first.tensor  # Its memory cannot be taken by another mapping meanwhile.
    del first
    assert pool.take(1000).tensor.data_ptr() != address
    assert kept.numel() == 1000


def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    buffer = SharedBuffer(4096)
    with pytest.raises(ShmError, match="No such file"):
        buffer.register(str(tmp_path / "missing.sock"))
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.send(b"something else")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ShmError, match="not one of this version"):
            buffer.register(path)
        thread.join()


@needs_broker
def test_a_buffer_is_registered_once_and_again_after_a_restart(
    server: tuple[Any, Client], tmp_path: Path
) -> None:
    process, client = server
    buffer = SharedBuffer(1 << 20)
    path = client.shm_socket()
    handle = buffer.register(path)
    assert len(handle) == 16
    assert buffer.register(path) == handle
    buffer.unregister()
    again = buffer.register(path)
    assert again != handle
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert not Path(path).exists()
    assert client.shm_socket() == ""
    (tmp_path / "address.json").unlink()
    other, _ = start_server(BINARY, tmp_path)
    try:
        assert buffer.register(path) not in (handle, again)
    finally:
        other.kill()
        other.wait(timeout=20)


@needs_broker
def test_the_adapter_moves_rows_through_shared_memory(server: tuple[Any, Client]) -> None:
    _, client = server
    model = make("llama")
    cached = CachedModel(model, client)
    vocab = cached.description.spec.vocab_size
    document = prompt(1, 300, vocab)
    assert cached.store(document).error == ""
    target = prompt(2, 40, vocab) + document + prompt(3, 20, vocab)
    shared = cached.prefill(target, preset="fast")
    assert shared.report.transport == "shared_memory"
    assert shared.report.transfer_bytes == shared.report.matched_tokens * sum(
        plane[0].numel() * plane.element_size()
        for planes in shared.cache.source.planes
        for plane in planes
    )
    client._shm_socket = ""  # What a broker on another host would answer.
    inline = cached.prefill(target, preset="fast")
    assert inline.report.transport == "inline"
    assert inline.report.matched_tokens == shared.report.matched_tokens
    # The same rows by both ways, so the same logits to the last bit.
    assert torch.equal(inline.logits, shared.logits)
    cached.close()


@needs_broker
def test_what_was_put_by_shared_memory_is_what_was_put_inline(
    server: tuple[Any, Client],
) -> None:
    _, client = server
    cached = CachedModel(make("llama"), client)
    vocab = cached.description.spec.vocab_size
    path = client.shm_socket()
    logits = []
    for socket_path, seed in ((path, 1), ("", 2)):
        client._shm_socket = socket_path
        # Not the same ids twice: each reference must really be sent.
        document = prompt(seed, 200, vocab)
        stored = cached.store(document)
        assert stored.error == ""
        assert stored.uploaded_tokens == 200
        assert stored.durable
        result = cached.prefill(document + prompt(9, 20, vocab))
        assert result.report.kind == "exact_prefix"
        full = cached.model(torch.tensor([document + prompt(9, 20, vocab)])).logits[0, -1]
        logits.append((result.logits, full))
    for reused, full in logits:
        assert torch.allclose(reused, full.float(), atol=2e-5)
    cached.close()


@needs_broker
def test_a_broker_that_dies_mid_read_costs_a_full_prefill(server: tuple[Any, Client]) -> None:
    process, client = server
    cached = CachedModel(make("llama"), client)
    vocab = cached.description.spec.vocab_size
    document = prompt(1, 300, vocab)
    cached.store(document)
    target = prompt(2, 40, vocab) + document
    opened = client.read_kv

    def read_and_kill(*arguments: Any, **named: Any) -> Any:
        process.kill()
        process.wait(timeout=20)
        return opened(*arguments, **named)

    client.read_kv = read_and_kill  # type: ignore[method-assign]
    result = cached.prefill(target, preset="fast")
    assert result.report.kind == "fallback"
    assert result.report.transport == "shared_memory"
    full = cached.model(torch.tensor([target])).logits[0, -1]
    assert torch.allclose(result.logits, full.float(), atol=1e-6)
    cached.close()


@needs_broker
def test_paged_targets_with_a_slot_mapping(server: tuple[Any, Client]) -> None:
    """An engine's pages as `[layer, 2, block, token, head, element]`, filled by the broker."""
    _, client = server
    model = make("llama")
    cached = CachedModel(model, client)
    vocab = cached.description.spec.vocab_size
    document = prompt(1, 300, vocab)
    cached.store(document)
    target = prompt(2, 40, vocab) + document
    request = pb.FindMatchRequest(model=cached.fingerprint, token_ids=target)
    match = client.find_match(request).match
    shapes = cached.description.shapes
    layers, heads, width = len(shapes), shapes[0][0].heads, shapes[0][0].width
    block, blocks = 16, 32
    buffer = SharedBuffer(layers * 2 * blocks * block * heads * width * 4)
    pages = buffer.array.view(np.float32).reshape(layers, 2, blocks, block, heads, width)
    slots = [(t // block * 13 + 3) % blocks * block + t % block for t in range(len(target))]
    plain = KvCache(shapes, len(target), torch.float32, torch.device("cpu"), KvPool())
    handle = plain.buffer.register(client.shm_socket()) if plain.buffer else b""
    assert list(client.read_kv(match.lease_id, target=plain.view(handle)))
    handle = buffer.register(client.shm_socket())
    every_plane = plane_views((plane for pair in pages for plane in pair), buffer)
    first_layer = plane_views(pages[0], buffer)
    for view in (
        kv_view(handle, every_plane, slots),
        kv_view(handle, first_layer, slots, layer_stride=pages.strides[0]),
    ):
        buffer.array[:] = 0
        reported = [frame.layer for frame in client.read_kv(match.lease_id, target=view)]
        assert reported[-1] == layers - 1
        for segment in match.segments:
            for token in range(segment.target_begin, segment.target_begin + segment.tokens):
                found = pages[:, :, slots[token] // block, slots[token] % block]
                for layer, planes in enumerate(plain.planes):
                    for plane in (0, 1):
                        assert np.array_equal(found[layer, plane], planes[plane][token].numpy())
    client.release(match.lease_id)
    cached.close()


@needs_broker
def test_a_handle_of_nobody_is_refused(server: tuple[Any, Client]) -> None:
    _, client = server
    cached = CachedModel(make("llama"), client)
    vocab = cached.description.spec.vocab_size
    document = prompt(1, 200, vocab)
    cached.store(document)
    request = pb.FindMatchRequest(model=cached.fingerprint, token_ids=document + [1] * 20)
    match = client.find_match(request).match
    cache = KvCache(cached.description.shapes, 220, torch.float32, torch.device("cpu"), KvPool())
    with pytest.raises(BrokerError) as refused:
        list(client.read_kv(match.lease_id, target=cache.view(b"x" * 16)))
    assert refused.value.code == "NOT_FOUND"
    client.release(match.lease_id)
    cached.close()
