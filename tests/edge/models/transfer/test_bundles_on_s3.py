"""Bundles on real S3 servers, by short-lived means: `make test-s3`, which names their programs.

versitygw checks signed URLs and their end; moto's server gives temporary credentials, and checks them.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.broker.process import free_port, is_listening
from edge.models.transfer.bundle_source import FetchError, Traffic
from edge.models.transfer.download import fetch_bundle
from schemas.messages import Release
from tests.serving import release_of, tar_of
from tests.sites import wait_until

pytestmark = [pytest.mark.s3, pytest.mark.filterwarnings("default")]  # botocore calls what is deprecated

_KEY, _SECRET = "operator", secrets.token_hex(16)
_SET_UP = 4  # calls without rights: moto checks the ones after them


def policy(**statement: object) -> str:
    """Return a policy of IAM with one statement."""
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | statement]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a program, whose address gets into the environment; without any credentials there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    started: list[subprocess.Popen[bytes]] = []

    def start(variable: str, *words: str, **environment: str) -> None:
        if variable not in os.environ:
            pytest.skip(f"{variable} names no program; 'make test-s3' does")
        port = free_port()
        command = [os.environ[variable], *(word.format(port=port) for word in words)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, env=os.environ | environment, **quiet))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        wait_until(lambda: is_listening(port))

    yield start
    for process in started:
        process.kill()
        process.wait()


def client(service: str, key: str = _KEY, secret: str = _SECRET) -> Any:
    """Return a client of a service at the server."""
    from botocore.config import Config  # noqa: PLC0415  # installed by `make test-s3`
    from botocore.session import get_session  # noqa: PLC0415  # as above

    config = Config(signature_version="s3v4") if service == "s3" else None
    return get_session().create_client(
        service, aws_access_key_id=key, aws_secret_access_key=secret, config=config
    )


def published(store: Any, folder: Path) -> Release:
    """Put a bundle into the bucket `models`."""
    bundle = tar_of(folder / "1.tar", [("weights", secrets.token_bytes(200_000))])
    store.create_bucket(Bucket="models")
    store.put_object(Bucket="models", Key="1.tar", Body=bundle.read_bytes())
    return release_of(bundle, 1, url="s3://models/1.tar")


def fetched(release: Release, target: Path) -> bool:
    """Fetch a bundle as an edge does; return True if it is the released one."""
    fetch_bundle(release, target, (), Traffic(), lambda: False)
    return target.stat().st_size == release.size_bytes


def test_an_edge_reads_with_temporary_credentials(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key, secret and session token in the environment read `s3://`; not with another secret."""
    server("GLEANER_MOTO", "-H", "127.0.0.1", "-p", "{port}", INITIAL_NO_AUTH_ACTION_COUNT=str(_SET_UP))
    iam = client("iam")
    iam.create_user(UserName="operator")
    iam.put_user_policy(
        UserName="operator", PolicyName="all", PolicyDocument=policy(Action="*", Resource="*")
    )
    operator = iam.create_access_key(UserName="operator")["AccessKey"]
    trust = policy(Principal={"AWS": "*"}, Action="sts:AssumeRole")
    role = iam.create_role(RoleName="edge", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    own = operator["AccessKeyId"], operator["SecretAccessKey"]
    reading = policy(Action=["s3:GetObject", "s3:ListBucket"], Resource="*")
    client("iam", *own).put_role_policy(RoleName="edge", PolicyName="read", PolicyDocument=reading)
    release = published(client("s3", *own), tmp_path)
    sts = client("sts", *own)
    given = sts.assume_role(RoleArn=role, RoleSessionName="edge-1", DurationSeconds=900)["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
    assert fetched(release, tmp_path / "edge.tar")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    _forget_clients()
    with pytest.raises(FetchError, match=r"cannot download version 1 from s3://models/1\.tar"):
        fetched(release, tmp_path / "second.tar")


def test_an_edge_reads_a_presigned_url(server: Any, tmp_path: Path) -> None:
    """It needs no credentials; once the URL has ended, the error shows no signature."""
    (tmp_path / "store").mkdir()
    words = ("--port", "127.0.0.1:{port}", "--quiet", "posix", str(tmp_path / "store"))
    server("GLEANER_VERSITYGW", *words, ROOT_ACCESS_KEY=_KEY, ROOT_SECRET_KEY=_SECRET)
    store = client("s3")
    release = published(store, tmp_path)

    def presigned(seconds: int) -> Release:
        where = {"Bucket": "models", "Key": "1.tar"}
        url = store.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)
        return msgspec.structs.replace(release, url=url)

    assert fetched(presigned(900), tmp_path / "edge.tar")
    ended = presigned(1)
    time.sleep(2.1)  # it ends by the clock, in whole seconds
    with pytest.raises(FetchError, match="the server answered 403") as caught:
        fetched(ended, tmp_path / "second.tar")
    assert ended.url.rpartition("=")[2] not in str(caught.value)


def _forget_clients() -> None:
    import s3fs  # noqa: PLC0415  # installed by `make test-s3`

    s3fs.S3FileSystem.clear_instance_cache()
