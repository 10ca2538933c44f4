"""The S3 server of ``make serve-s3``: one per folder, private, and up again whatever happened."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import botocore.exceptions
import pytest
from limits import HANG_S
from local_s3 import Birth, LocalS3, ServerError, is_free, main
from servers import S3Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalS3]:
    """A folder's server, not started yet. The folder's name is one to trip over."""
    local = LocalS3(tmp_path / "a folder, with 'marks'")
    yield local
    if born := Birth.of(local.pid or 0):
        born.signal(signal.SIGKILL)  # its own way takes a second longer
    local.stop()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A server that is up, for tests that leave it so."""
    local = LocalS3(tmp_path_factory.mktemp("up") / "a folder, with 'marks'")
    assert local.start()
    yield local
    running(local).signal(signal.SIGKILL)
    local.stop()


def put(server: LocalS3, body: bytes) -> None:
    S3Server(server.env, server.bucket, honours_conditions=True).client().put_object(
        Bucket=server.bucket, Key="kept", Body=body
    )


def get(server: LocalS3) -> bytes:
    client = S3Server(server.env, server.bucket, honours_conditions=True).client()
    return client.get_object(Bucket=server.bucket, Key="kept")["Body"].read()


def running(server: LocalS3) -> Birth:
    """The server's process, which must be there."""
    born = Birth.of(server.pid or 0)
    assert born is not None
    return born


def listening_addresses(pid: int) -> set[str]:
    """Addresses of the process's listening TCP sockets, in the kernel's hexadecimal."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it opens and closes others all the time
            sockets.add(os.readlink(file))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                addresses.add(local.partition(":")[0])
    return addresses


def test_a_second_start_reuses_the_server(up: LocalS3) -> None:
    pid, endpoint = up.pid, up.endpoint_url
    assert not up.start()
    assert (up.pid, up.endpoint_url) == (pid, endpoint)


def test_starts_at_the_same_time_make_one_server(server: LocalS3) -> None:
    started: list[bool] = []
    threads = [threading.Thread(target=lambda: started.append(server.start())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [False, False, True]


def test_a_killed_server_starts_again_with_its_data_keys_and_endpoint(server: LocalS3) -> None:
    server.start()
    env = server.env
    put(server, b"before the kill")
    killed = running(server)
    killed.signal(signal.SIGKILL)
    assert killed.ends_within(HANG_S)
    assert server.start()
    assert get(server) == b"before the kill"
    assert server.env == env


def test_stop_ends_the_server_and_its_data_survive_a_change_of_ports(server: LocalS3) -> None:
    server.start()
    put(server, b"on other ports")
    endpoint, ended = server.endpoint_url, running(server)
    assert server.stop()
    assert not ended.alive()
    assert is_free(int(endpoint.rpartition(":")[2]))
    server.ports_file.unlink()
    server.start()
    assert server.endpoint_url != endpoint
    assert get(server) == b"on other ports"


def test_a_hung_server_is_replaced(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    monkeypatch.setattr("local_s3.REQUEST_S", 2.0)
    for limit in ("PATIENCE_S", "STOP_S"):
        monkeypatch.setattr(f"local_s3.{limit}", 1.0)
    put(server, b"before the hang")
    hung = running(server)
    os.utime(server.pid_file, (0, 0))  # up for long: no longer a start to wait for
    hung.signal(signal.SIGSTOP)
    assert server.start()
    assert not hung.alive()
    assert get(server) == b"before the hang"


def test_a_moved_folder_takes_its_data_along(server: LocalS3) -> None:
    server.start()
    put(server, b"before the move")
    old = running(server)
    moved = LocalS3(server.folder.rename(server.folder.with_name("moved")))
    try:
        assert moved.start()
        assert not old.alive()
        assert get(moved) == b"before the move"
    finally:
        moved.stop()


def test_a_copy_of_the_folder_leaves_the_original_alone(up: LocalS3) -> None:
    copy = LocalS3(shutil.copytree(up.folder, up.folder.with_name("copy")))
    assert copy.pid is None
    assert not copy.stop()
    assert up.answers()


def test_a_taken_port_is_given_up(up: LocalS3, server: LocalS3) -> None:
    server.folder.mkdir()
    shutil.copy(up.ports_file, server.ports_file)
    server.start()
    assert server.endpoint_url != up.endpoint_url
    assert up.answers()


def test_stop_is_no_error_without_a_server(tmp_path: Path) -> None:
    assert not LocalS3(tmp_path / "never made").stop()


def test_it_listens_on_the_loopback_address_only(up: LocalS3) -> None:
    assert listening_addresses(running(up).pid) == {"0100007F"}


def test_anonymous_requests_are_refused(seaweed: S3Server) -> None:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    anonymous = boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint_url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )
    seaweed.client().put_object(Bucket=seaweed.bucket, Key="private", Body=b"")
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|403"):
        anonymous.get_object(Bucket=seaweed.bucket, Key="private")
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|403"):
        anonymous.put_object(Bucket=seaweed.bucket, Key="intruder", Body=b"")


def test_keys_are_for_their_owner_only(up: LocalS3) -> None:
    assert stat.S_IMODE(up.env_file.stat().st_mode) == 0o600
    secret = up.env["AWS_SECRET_ACCESS_KEY"]
    assert secret not in up.log_file.read_text()
    assert secret.encode() not in Path(f"/proc/{up.pid}/cmdline").read_bytes()


def test_another_process_with_the_recorded_pid_is_left_alone(server: LocalS3) -> None:
    server.folder.mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=server.folder) as bystander:
        try:
            line = Path(f"/proc/{bystander.pid}/stat").read_text().split()
            line[21] = str(int(line[21]) - 1)  # the tick of another birth
            server.pid_file.write_text(" ".join(line))
            assert server.pid is None
            assert not server.stop()
            assert server.start()
            assert bystander.poll() is None
        finally:
            bystander.kill()


@pytest.mark.parametrize("left", ["", "garbage", "1 (weed) S", "999999999 (x) S" + " 1" * 40])
def test_a_damaged_pid_file_means_no_server(server: LocalS3, left: str) -> None:
    server.folder.mkdir()
    server.pid_file.write_text(left)
    assert server.pid is None
    assert not server.stop()


def test_the_callers_environment_does_not_matter(server: LocalS3) -> None:
    hostile = {
        "HOME": "",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "AWS_PROFILE": "missing",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_SESSION_TOKEN": "stale",
        "AWS_USE_FIPS_ENDPOINT": "true",
    }
    script = Path(__file__).resolve().parents[2] / "deploy" / "local_s3.py"
    start = [sys.executable, str(script), "start", "--folder", str(server.folder)]
    read = "import boto3; print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
    shell = f'"$@" && . "{server.env_file}" && "{sys.executable}" -c "{read}"'
    result = subprocess.run(
        ["/bin/sh", "-euc", shell, "sh", *start],
        env={**os.environ, **hostile},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "polyfit"


def test_a_server_that_cannot_start_is_an_error_of_one_line(
    server: LocalS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("local_s3.find_weed", lambda: "/bin/false")
    assert main(["start", "--folder", str(server.folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("local_s3: the S3 server does not start")
    assert error.count("\n") == 1


def test_a_missing_weed_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["start", "--folder", str(tmp_path / "s3")]) == 1
    assert "`make serve-s3` installs it" in capsys.readouterr().err


def test_the_state_is_in_the_exit_code(
    up: LocalS3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--folder", str(tmp_path / "never made")]) == 1
    assert main(["status", "--folder", str(up.folder)]) == 0
    assert up.endpoint_url in capsys.readouterr().out


def test_env_without_a_server_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no server has been started"):
        _ = LocalS3(tmp_path).env
