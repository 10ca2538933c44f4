"""boto3's client for a store on S3: time limits, retries, and what S3-compatible servers need."""

from typing import TYPE_CHECKING, Any, Final

from polyfit.errors import StoreError
from polyfit.store.aws import runs_program_for_keys, session, split_bucket, unless_configured
from polyfit.store.s3_answers import check_answers
from polyfit.store.s3_calls import watch_calls
from polyfit.store.s3_errors import as_store_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["make_client"]

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 30
ATTEMPTS: Final = 5
DEFAULT_REGION: Final = "us-east-1"


def make_client(uri: str, endpoint_url: str | None, region: str | None) -> "S3Client":
    """A client for ``uri``, with the credentials that boto3's own chain finds on this machine.

    Raises:
        StoreError: the AWS configuration or the credentials cannot be used.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    here = session()
    try:
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=32,
            **unless_configured(here, _compatible(uri) if endpoint_url else {}),
        )
        client = boto3.Session(botocore_session=here).client(
            "s3", endpoint_url=endpoint_url, region_name=region or DEFAULT_REGION, config=config
        )
    except BotoCoreError as error:
        raise as_store_error(error, uri, "a client for S3") from None
    except Exception as error:
        if runs_program_for_keys(here):  # botocore does not check what the program prints
            raise StoreError(
                f"{uri}: no credentials ({type(error).__name__}: {error}); check the "
                "profile's credential_process, and that it prints JSON with Version: 1, "
                "AccessKeyId and SecretAccessKey"
            ) from None
        if isinstance(error, ValueError):
            raise StoreError(f"{uri}: {error}") from None
        raise
    check_answers(client)
    watch_calls(client)
    return client


def _compatible(uri: str) -> dict[str, Any]:
    """Options for S3-compatible servers: many have no virtual hosts, and refuse checksums that
    they do not know."""
    # Not signed, as botocore does over https where a Content-MD5 is there too. That header is
    # signed, and not all servers would compare a signed SHA-256 with what they receive.
    s3: dict[str, Any] = {"payload_signing_enabled": False}
    if not split_bucket(uri)[0].startswith("arn:"):  # an access point is a host
        s3["addressing_style"] = "path"
    return {
        "s3": s3,
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
