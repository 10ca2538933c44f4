"""Bytes under keys: addresses of stores, and the two kinds of store, a local folder and S3.

Knows nothing of runs: keys and contents are the wing ``run``'s business. Third party: boto3.
"""

__all__ = ["address", "base", "credentials", "object_file", "s3_calls", "subfolder", "uri"]
