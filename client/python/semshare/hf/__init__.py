"""semshare for Hugging Face Transformers."""

from semshare.hf.cached_model import CachedModel
from semshare.hf.capture import CapturePolicy
from semshare.hf.errors import ApproximateCacheError, NotSupportedError
from semshare.hf.guard import TokenGuard
from semshare.hf.load import load_model
from semshare.hf.report import GenerateResult, PrefillReport, PrefillResult, StoreResult
from semshare.hf.shadow import ShadowPolicy

__all__ = [
    "ApproximateCacheError",
    "CachedModel",
    "CapturePolicy",
    "GenerateResult",
    "NotSupportedError",
    "PrefillReport",
    "PrefillResult",
    "ShadowPolicy",
    "StoreResult",
    "TokenGuard",
    "load_model",
]
