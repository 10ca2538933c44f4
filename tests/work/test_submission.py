"""What a job for a cluster is made of, and that nothing of it is a credential."""

import json
import re
from pathlib import Path

import pytest

import polyfit
from polyfit.errors import UsageError
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.work import job_start
from polyfit.work.submission import Submission

SECRET = "planted+secret/value="


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in the environment and another in a profile; a store's variable."""
    (tmp_path / "credentials").write_text("[default]\naws_secret_access_key = of-the-profile\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("BUCKET", "results")
    monkeypatch.setenv("UNRELATED", "stays here")


def submission(
    *texts: str,
    store: str | None = "s3://bucket/prefix",
    endpoint_url: str | None = None,
    date: str | None = None,
    reuse: str | None = None,
    options: tuple[str, ...] = (),
    python: str = "python",
) -> Submission:
    specs = [Spec.parse(text) for text in texts]
    return Submission.of(specs, store, endpoint_url, None, date, reuse, options, python)


def test_the_command_line_there_is_the_one_here(tmp_path: Path) -> None:
    made = submission("name: a", "name: b", options=("--retry-failed",), python="/opt/p y/python")
    assert made.entrypoint == (
        "exec '/opt/p y/python' start_polyfit.py run a.yaml b.yaml --store s3://bucket/prefix "
        "--retry-failed"
    )
    made.write(tmp_path)
    assert (tmp_path / "b.yaml").read_text() == "name: b"
    asked = json.loads((tmp_path / job_start.ASKED).read_text())
    assert asked["plans"]["a.yaml"] == Plan.of(Spec.parse("name: a")).hash
    assert asked["versions"]["polyfit"] == polyfit.__version__


def test_its_name_and_metadata_say_what_runs() -> None:
    run_id = Plan.of(Spec.parse("name: a")).run_id
    one, two = submission("name: a"), submission("name: a", "name: b")
    assert one.name == f"a-{run_id}"
    assert one.run_uris == f"s3://bucket/prefix/a/{run_id}"
    assert one.metadata["run"] == one.run_uris
    assert "@" in one.metadata["owner"]
    assert two.name.startswith("a-and-1-more-")
    assert two.name != submission("name: a", "name: c").name


def of(text: str, **keywords: str) -> tuple[Submission, dict[str, str]]:
    made = submission(text, **keywords)  # type: ignore[arg-type]
    return made, made.metadata


def test_a_job_of_another_plan_or_endpoint_is_not_this_one() -> None:
    """Though its run has the same name."""
    made, ours = of("name: a\nrun_id: x")
    other, theirs = of("name: a\nrun_id: x\nfit: {degree: 4}")
    assert ours["run"] == theirs["run"]
    found, here = other.plans[0].hash[:12], made.plans[0].hash[:12]
    with pytest.raises(UsageError, match=f"a-x-1, .* has another plan: {found}, and .* {here};"):
        made.check_same("a-x-1", theirs)
    _, elsewhere = of("name: a\nrun_id: x", endpoint_url="http://other:1")
    with pytest.raises(
        UsageError, match="another endpoint: http://other:1, and here it is that of"
    ):
        made.check_same("a-x-1", elsewhere)
    with pytest.raises(UsageError, match="another plan: unknown"):
        made.check_same("a-x-1", {})


@pytest.mark.parametrize(
    ("text", "keywords", "same"),
    [
        ("name: a", {}, True),
        ("name: a", {"python": "/opt/python"}, False),
        ("name: a", {"options": ("--retry-failed",)}, False),
        ("name: a\nresources: {actors: {max: 1}}", {}, False),
    ],
)
def test_a_job_of_the_same_plan_says_whether_all_is_the_same(
    text: str, keywords: dict[str, str], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that only this machine's environment names is not sent."""
    _, theirs = of("name: a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    made, ours = of(text, **keywords)
    assert ours["nonce"] != theirs["nonce"]
    assert made.check_same("a-1", theirs) is same


def test_specs_of_one_name_have_files_of_their_own() -> None:
    made = submission("name: a", "name: a\nfit: {degree: 4}", "name: a-1")
    assert [*made.files] == ["a.yaml", "a-1.yaml", "a-1-1.yaml"]
    assert made.files["a-1.yaml"] == "name: a\nfit: {degree: 4}"


def test_variables_of_a_store_travel_and_no_others() -> None:
    made = submission("name: a\nstore: {uri: 's3://${BUCKET}/x'}", store=None)
    assert made.environment == {"RAY_JOB_STOP_WAIT_TIME_S": "40", "BUCKET": "results"}
    assert made.runs[0].uri.startswith("s3://results/x/a/")


@pytest.mark.parametrize("key", ["s3://b/x", "{uri: s3://b/x, storage_class: STANDARD}"])
def test_a_variable_that_only_another_place_names_stays_here(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYFIT_STORE", "s3://bucket/x")
    text = f"name: a\n# ${{UNRELATED}}\nstore: {key}"
    assert [*submission(text, store=None).environment] == ["RAY_JOB_STOP_WAIT_TIME_S"]


@pytest.mark.parametrize("store", ["s3://other/y", "/shared/y"])
@pytest.mark.parametrize(
    "key",
    [
        "s3://${BUCKET}/x",
        "{uri: 's3://${BUCKET}/x', sse: AES256}",
        "{uri: s3://b/x, endpoint_url: 'https://${BUCKET}', storage_class: STANDARD}",
    ],
)
def test_variables_of_a_store_in_whose_place_another_is_given_stay_here(
    key: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec that is sent can be read without them, and means the same."""
    made = submission(f"name: a\nfit: {{degree: 4}}\nstore: {key}", store=store)
    assert [*made.environment] == ["RAY_JOB_STOP_WAIT_TIME_S"]
    monkeypatch.delenv("BUCKET")
    sent = Spec.parse(made.files["a.yaml"])
    assert sent.store is not None
    assert (sent.store.sse, sent.store.storage_class) == (
        made.runs[0].sse,
        made.runs[0].storage_class,
    )
    assert Plan.of(sent).hash == made.plans[0].hash


def test_variables_of_keys_that_count_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what an option replaces."""
    key = "{uri: 's3://${BUCKET}/x', endpoint_url: 'https://${BUCKET_HOST:-h}'}"
    made = submission(f"name: a\nstore: {key}", store=None, endpoint_url="https://other")
    assert [*made.environment] == ["RAY_JOB_STOP_WAIT_TIME_S", "BUCKET"]
    monkeypatch.setenv("POLYFIT_STORE", "s3://bucket/x")
    assert "POLYFIT_STORE" in submission("name: a", store=None).environment


def test_the_date_is_that_of_the_submission() -> None:
    """Whenever the job begins, and only where it matters."""
    dated = submission("name: a", store="s3://bucket/{date}", date="2026-03-04")
    assert dated.arguments == ("--store", "s3://bucket/{date}", "--date", "2026-03-04")
    assert dated.runs[0].uri.startswith("s3://bucket/2026-03-04/a/")
    today = submission("name: a\nrun_id: night-{date}").arguments[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", today)
    assert "--date" not in submission("name: a").arguments


def test_a_run_to_reuse_means_the_same_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.yaml").write_text("name: other")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    run_id = Plan.of(Spec.parse("name: other")).run_id
    for given, sent in {
        "other.yaml": f"s3://bucket/prefix/other/{run_id}",
        "runs": str(tmp_path / "runs"),
        "other@-1": "other@-1",
    }.items():
        assert submission("name: a", reuse=given).arguments[-2:] == ("--reuse", sent)


@pytest.mark.parametrize(
    ("text", "store", "found"),
    [
        ("name: a", None, "none is named"),
        ("name: a", "runs", "'runs' is a folder of this machine"),
        ("name: a\nstore: runs", None, "'runs' is a folder of this machine"),
    ],
)
def test_a_store_outlives_the_job(text: str, store: str | None, found: str) -> None:
    with pytest.raises(UsageError, match=f"a Ray job needs a store that outlives it, and {found}"):
        submission(text, store=store)


def test_a_folder_may_be_shared_by_all_nodes(tmp_path: Path) -> None:
    assert submission("name: a", store=str(tmp_path)).runs[0].uri.startswith(f"{tmp_path}/a/")


PROFILE = "aws_secret_access_key of the profile default"


@pytest.mark.parametrize(
    ("text", "keywords", "message"),
    [
        (f"name: a\n# {SECRET}", {}, "<spec>:2 holds the value of AWS_SECRET_ACCESS_KEY"),
        ("name: a\n# of-the-profile", {}, f"<spec>:2 holds the value of {PROFILE}"),
        ("name: a\n# planted%2Bsecret%2fvalue=", {}, "<spec>:2 holds the value of AWS_SECRET_A"),
        (
            "name: a",
            {"python": "xplanted+secret9-"},
            "the command line holds the value of LONG_PAT",
        ),
        ("name: a", {"options": ("--x", "AKIAIOSFODNN7EXAMPLE")}, "the command line holds an AWS"),
        ("name: a", {"python": SECRET}, "the command line holds the value of AWS_SECRET_ACC"),
        ("name: a", {"store": f"s3://bucket/{SECRET}"}, "the command line holds the value of AWS"),
    ],
)
def test_what_holds_a_credential_is_not_sent(
    text: str, keywords: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONG_PAT", "planted+secret9-and-more")
    with pytest.raises(UsageError) as refused:
        submission(text, **keywords)  # type: ignore[arg-type]
    assert str(refused.value).startswith(message)
    assert "nothing was sent" in str(refused.value)
    assert SECRET not in str(refused.value)
