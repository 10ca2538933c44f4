"""Doing it: one shard, in this process or on Ray, and the driver that brings a run to its end.

The only wing that knows Ray. A shard: ``batches``, ``fitting``, ``storing``, ``worker``. In this
process: ``inline``. On Ray: ``cluster``, ``actor``, ``nodes``, ``ray_executor``. The run:
``workplace``, ``retry``, ``attempt``, ``driver``.
"""

__all__ = ["driver", "heartbeat", "progress", "recompute", "signals"]
