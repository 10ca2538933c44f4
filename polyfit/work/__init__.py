"""Doing it: one shard, in this process or on Ray, and the driver that brings a run to its end.

The only wing that knows Ray. A shard: ``batches``, ``fitting``, ``storing``, ``worker``. In this
process: ``inline``. On Ray: ``cluster``, ``actor``, ``nodes``, ``ray_executor``. The run:
``workplace``, ``retry``, ``attempt``, ``driver``. As a job of a cluster: ``submission``,
``job_start``, ``job_server``, ``job_follower``, ``job_end``.
"""

__all__ = [
    "cluster",
    "cluster_address",
    "driver",
    "heartbeat",
    "job_end",
    "job_follower",
    "job_server",
    "job_start",
    "progress",
    "recompute",
    "signals",
    "submission",
]
