"""Client of the semshare KV-cache broker.

`Client` speaks the contract `semshare.v1`; the adapter for Transformers is in `semshare.hf` and
needs the extra of that name.
"""

from semshare.client import BrokerError, Client, KvFrame

__all__ = ["BrokerError", "Client", "KvFrame"]
