"""Photos are read by real Ray clusters of two nodes on this machine, one core each."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aerofuse.ingest import intake
from aerofuse.ingest.intake import Intake, IntakeSettings, PhotoFile, ShardWork, write_shard
from aerofuse.ingest.ray_engine import take_in_on_ray
from tests.ingest.photo_folder import PhotoFolder, draw_folder
from tests.ingest.remote_photos import prepare_from, put, use
from tests.s3_server import free_ports, s3_server

_SETTINGS = IntakeSettings(64)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster whose second node is `cluster.second`."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with two_nodes() as cluster:
        yield cluster.address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoFolder:
    monkeypatch.setattr(intake, "_SHARD_FILES", 4)
    folder = draw_folder(tmp_path / "photos", photos=48)
    (folder.root / folder.table["filename"][5]).write_bytes(b"no photo")
    return folder


def _files(folder: PhotoFolder) -> list[PhotoFile]:
    return [PhotoFile(folder.root / name) for name in folder.table["filename"]]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["cluster", "here"])
def test_a_cluster_gives_the_bytes_of_one_machine(
    where: str, folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if where == "cluster":
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("address"))
    monkeypatch.chdir(folder.root.parent)
    expected = prepare_from(folder.root.name, folder, tmp_path / "local")
    assert prepare_from(folder.root.name, folder, tmp_path / "ray", "ray") == expected
    shards = sorted((tmp_path / "local" / "work" / "photos").iterdir())
    assert len(shards) >= 8
    for shard in shards:
        assert (tmp_path / "ray" / "work" / "photos" / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.slow
def test_a_node_that_dies_costs_its_shards_only(
    folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def noted(path: Path, content: Any) -> None:
        written.append(path)
        write_shard(path, content)

    monkeypatch.setattr("aerofuse.ingest.ray_engine.write_shard", noted)
    with two_nodes() as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)

        def losing_a_node(work: Sequence[ShardWork], settings: IntakeSettings) -> Iterator[int]:
            for number, count in enumerate(take_in_on_ray(work, settings)):
                if number == 2:
                    cluster.remove_node(cluster.second, allow_graceful=False)
                yield count

        taken = Intake(_files(folder), _SETTINGS, tmp_path / "ray", losing_a_node)
    assert len(written) == len(set(written)) == len(list((tmp_path / "ray").iterdir()))
    expected = Intake(_files(folder), _SETTINGS, tmp_path / "local")
    assert taken.facts.equals(expected.facts)
    for shard in (tmp_path / "local").iterdir():
        assert (tmp_path / "ray" / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.slow
def test_photos_on_s3_are_read_by_the_nodes(
    folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path / "s3") as server:
        use(server, monkeypatch)
        root = put(folder, f"s3://{server.bucket}/photos")
        with two_nodes() as cluster:  # its nodes have the keys
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            found = prepare_from(root, folder, tmp_path / "ray", "ray")
        assert found == prepare_from(str(folder.root), folder, tmp_path / "local")


@pytest.mark.slow
def test_a_node_that_the_store_refuses_is_named(
    address: str, folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)  # its nodes were started without keys
    with s3_server(tmp_path / "s3") as server:
        use(server, monkeypatch)
        root = put(folder, f"s3://{server.bucket}/photos")
        with pytest.raises(ConnectionError, match=r"object store .* on every machine that reads photos") as caught:
            prepare_from(root, folder, tmp_path / "out", "ray")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out" / "work" / "photos").iterdir())


@pytest.mark.slow
def test_a_node_that_does_not_see_the_photos_is_named(
    address: str, folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would find the files missing; here the machine that runs `prepare` has seen others."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(FileNotFoundError, match=f"the node {socket.gethostname()} does not see the photos as"):
        list(take_in_on_ray([(_files(folder), tmp_path / "0123.arrow")], _SETTINGS))
    assert not list(tmp_path.glob("*.arrow"))


@pytest.mark.slow
@pytest.mark.parametrize("ours", [("2.60.0", "3.99.0"), ("1.0.0", "3.11.7")], ids=["python", "ray"])
def test_a_cluster_of_other_versions_is_refused(
    ours: tuple[str, str], address: str, folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: ours)
    message = rf"cannot be used \(.*Version mismatch: .* Ray: {ours[0]} Python: {ours[1]}"
    with pytest.raises(ConnectionError, match=message) as caught:
        Intake(_files(folder), _SETTINGS, tmp_path / "work", take_in_on_ray)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "work").iterdir())


def test_a_cluster_that_does_not_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match=r"no cluster answers there .*set data.engine to local"):
        list(take_in_on_ray([([], tmp_path / "0.arrow")], _SETTINGS))


def test_without_ray_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConnectionError, match=r"pip install 'aerofuse\[ray\]', or set data.engine to local"):
        list(take_in_on_ray([([], tmp_path / "0.arrow")], _SETTINGS))
