"""Errors of the Transformers adapter."""

from __future__ import annotations


class NotSupportedError(Exception):
    """The model cannot be served by semshare; the message names the part that stands in the way."""


class ApproximateCacheError(ValueError):
    """The cache is not exact, or not known to be: it must not become a reference."""


class MalformedAnswer(Exception):
    """The broker's answer contradicts the contract or the request."""


class SigmaExceeded(Exception):
    """The sentinels deviate more than the plan allows: reuse would not be faithful."""
