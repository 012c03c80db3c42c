"""Running a model's own decoder layers over selected tokens.

The model's forward is used as it is: it is given the selected tokens with their positions and a
`KvCache` that returns every row of the prompt. Attention is ours for the time of the call (or gets
an explicit mask where a model does not go through Transformers' attention interface). Where the
set of tokens shrinks between two layers, a pre-hook narrows what the next layer receives. So
embedding scales, norms, parallel blocks, experts and output heads need no code here.

Not thread-safe: one run at a time on a model, and nobody else may use the model meanwhile.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from semshare.hf import attention
from semshare.hf.cache import KvCache
from semshare.hf.errors import NotSupportedError
from semshare.hf.kinds import FULL, AttentionKind, attention_kinds

Narrow = Callable[[int, torch.Tensor], torch.Tensor | None]
"""(layer about to run, rows in force) -> the sorted subset that goes on, or None for all."""


class LayerDriver:
    """Selective forwards over one model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.kinds: list[AttentionKind] = attention_kinds(model.config)
        self.layers = _decoder_layers(model, len(self.kinds))
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        self._decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else None
        if self._decoder is None or self._decoder is model:
            self._decoder = model.base_model
        self._interface = bool(getattr(model, "_supports_attention_backend", False))
        if not self._interface and any(kind.name != FULL for kind in self.kinds):
            raise NotSupportedError(
                f"{type(model).__name__} does not use Transformers' attention interface and has "
                "layers that are not full attention"
            )
        self._keeps_last = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def full(
        self,
        ids: torch.Tensor,
        cache: KvCache | None,
        *,
        before_layer: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """The engine's own prefill of `[tokens]` ids, rows into `cache` or nowhere; `[vocab]`
        logits.

        `before_layer` is called before each decoder layer, and may end the forward by raising.
        """
        arguments: dict[str, Any] = {"input_ids": ids[None], "use_cache": cache is not None}
        if cache is not None:
            cache.rows = None
            arguments["past_key_values"] = cache
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if before_layer is not None:
                hook = _caller(before_layer, threading.get_ident())
                for module in self.layers:
                    stack.callback(module.register_forward_pre_hook(hook).remove)
            return self.model(**arguments, **self._keep()).logits[0, -1].float()

    def run(
        self,
        ids: torch.Tensor,
        rows: torch.Tensor,
        cache: KvCache,
        *,
        narrow: Narrow | None = None,
        narrow_layers: Sequence[int] = (),
        hidden: torch.Tensor | None = None,
        importance: torch.Tensor | None = None,
        want_logits: bool = True,
    ) -> torch.Tensor | None:
        """Computes the tokens `rows` (sorted) of `[tokens]` ids; `[vocab]` float32 logits of the
        last row, or None unless `want_logits`.

        Every other row is taken from `cache`. `narrow` is asked before each of `narrow_layers`.
        `hidden` `[tokens]` bool masks keys; `importance`, `[tokens]` or `[n, tokens]` float32 (see
        `attention.Run`), is added to.
        """
        run = attention.Run(self.kinds, self.dtype, rows, hidden, importance)
        cache.rows = rows
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(self._switched(run))
            if narrow is not None and narrow_layers:
                narrower = _Narrower(run, cache, narrow, set(narrow_layers))
                for layer in range(min(narrow_layers), len(self.layers)):
                    hook = narrower.hook(layer)
                    handle = self.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
                    stack.callback(handle.remove)
                if not self._interface:
                    handle = self.layers[-1].register_forward_hook(narrower.restore)
                    stack.callback(handle.remove)
            if importance is not None and not self._interface:
                for layer, module in enumerate(self.layers):
                    own = run.importance_of(layer)
                    if own is not None:
                        handle = module.register_forward_hook(_collector(own))
                        stack.callback(handle.remove)
            return self._forward(ids, rows, cache, run, want_logits)

    def _forward(
        self,
        ids: torch.Tensor,
        rows: torch.Tensor,
        cache: KvCache,
        run: attention.Run,
        want_logits: bool,
    ) -> torch.Tensor | None:
        arguments: dict[str, Any] = {
            "input_ids": ids[rows][None],
            "position_ids": rows[None],
            "past_key_values": cache,
            "use_cache": True,
        }
        if not self._interface:
            arguments["attention_mask"] = _dense_mask(run, cache.tokens)
        if not want_logits:
            self._decoder(**arguments)
            return None
        return self.model(**arguments, **self._keep()).logits[0, -1].float()

    def _keep(self) -> dict[str, int]:
        return {"logits_to_keep": 1} if self._keeps_last else {}

    @contextmanager
    def _switched(self, run: attention.Run) -> Iterator[None]:
        """Puts our attention in force for this thread's run."""
        token = attention.ACTIVE.set(run)
        before = self.config._attn_implementation
        if self._interface:
            # Not the public setter: it re-validates every submodule on every switch.
            self.config._attn_implementation_internal = attention.NAME
        try:
            yield
        finally:
            if self._interface:
                self.config._attn_implementation_internal = before
            attention.ACTIVE.reset(token)


class _Narrower:
    """Drops tokens between two layers, and hands later layers arguments of the right length."""

    def __init__(
        self,
        run: attention.Run,
        cache: KvCache,
        narrow: Narrow,
        layers: set[int],
    ) -> None:
        self._run = run
        self._cache = cache
        self._narrow = narrow
        self._layers = layers
        self._length = len(run.rows)
        # Index into the run's first rows: the model computed its arguments for those.
        self._kept: torch.Tensor | None = None
        self._first = run.rows

    def hook(self, layer: int) -> Callable[..., Any]:
        def pre_hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            states = self._apply(layer, _hidden_states(args, kwargs))
            if self._kept is None:
                return None
            args = tuple(self._cut(value) for value in args)
            kwargs = {name: self._cut(value) for name, value in kwargs.items()}
            if args:
                return (states, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": states}

        return pre_hook

    def restore(self, _: nn.Module, __: Any, output: Any) -> Any:
        """Puts the last layer's rows back to the first number of tokens, zero where dropped: some
        models (GPT-J) reshape what leaves the layers by what entered them."""
        if self._kept is None:
            return None
        states = output[0] if isinstance(output, tuple) else output
        whole = states.new_zeros(1, self._length, states.shape[-1])
        whole[:, self._kept] = states
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    def _apply(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        if layer not in self._layers:
            return states
        rows = self._run.rows
        left = self._narrow(layer, rows)
        if left is None or len(left) == len(rows):
            return states
        states = states[:, torch.searchsorted(rows, left)]
        self._kept = torch.searchsorted(self._first, left)
        self._run.set_rows(left)
        self._cache.rows = left
        return states

    def _cut(self, value: Any) -> Any:
        """Selects the kept tokens along the axis of tokens: 2 of a 4-d mask, else 1."""
        if isinstance(value, tuple):
            return tuple(self._cut(item) for item in value)
        if not isinstance(value, torch.Tensor) or value.ndim < 2:
            return value
        axis = 2 if value.ndim == 4 else 1
        if value.shape[axis] != self._length or self._length == 1:
            return value
        return value.index_select(axis, self._kept)  # type: ignore[arg-type]


def _hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    states: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def _caller(before_layer: Callable[[], None], thread: int) -> Callable[..., None]:
    """Calls it for forwards of one thread: hooks are the module's, and so every thread's."""

    def hook(_: nn.Module, __: Any) -> None:
        if threading.get_ident() == thread:
            before_layer()

    return hook


def _collector(importance: torch.Tensor) -> Callable[..., None]:
    """For models that return their attention weights `[1, heads, n, tokens]`."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, torch.Tensor) or weights.ndim != 4:
            raise NotSupportedError("layers do not return attention weights")
        importance.add_(weights[0].float().sum(dim=(0, 1)))

    return hook


def _dense_mask(run: attention.Run, tokens: int) -> torch.Tensor:
    """`[1, 1, n, tokens]` additive mask, for models with their own attention code."""
    lowest = torch.finfo(run.dtype).min
    mask = torch.full((len(run.rows), tokens), lowest, dtype=run.dtype, device=run.rows.device)
    for block in run.blocks(0):
        part = block.mask.clamp_min(lowest)
        mask[block.begin : block.end, block.key_begin : block.key_end] = part
    return mask[None, None]


def _decoder_layers(model: nn.Module, count: int) -> list[nn.Module]:
    """The decoder's layers: the first list of `count` modules."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise NotSupportedError(f"{type(model).__name__} has no list of {count} decoder layers")
