"""Doing it: one shard, in this process or on Ray, and the driver that brings a run to its seal.

The only wing that knows Ray. What computes (the wing ``engine``) and what stores (``store``,
``run``) is used from here, and knows nothing of it.
"""

__all__ = ["driver", "heartbeat", "progress", "recompute"]
