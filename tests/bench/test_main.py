"""`mover bench`: its arguments, its exit statuses, and one small run of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mover.bench import asking, clients, exports, main, tools
from mover.bench.data import GIB, MIB
from mover.bench.rows import LOGGED_READ, ROWS
from mover.bench.servers import IMAGEIO_VARIABLE, find_imageio, mover_environment
from mover.cli.status import Status, UsageError


def test_without_arguments_every_row_is_run_five_times_with_a_gibibyte() -> None:
    options = main.parse([])
    assert options.rows == list(ROWS)
    assert (options.size, options.runs, options.json) == (GIB, 5, False)


def test_rows_and_options_can_be_given_in_any_order() -> None:
    options = main.parse(["get", "--size", "16MiB", "put", "--runs", "2", "--json"])
    assert options.rows == ["get", "put"]
    assert (options.size, options.runs, options.json) == (16 * MIB, 2, True)


@pytest.mark.parametrize(
    ("argv", "named"),
    [(["nonsense"], "nonsense"), (["--size", "1GB"], "1GB"), (["--runs", "0"], "'0'"), (["--runs", "x"], "'x'")],
)
def test_wrong_usage_is_an_error_that_names_what_was_wrong(argv: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        main.parse(argv)


def test_a_missing_program_ends_the_bench_with_status_3_and_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "SEARCH_PATH", str(tmp_path))
    assert main.main(["firstbyte"]) == Status.UNREACHABLE
    error = capsys.readouterr().err
    assert error.startswith("mover: bench: nbdcopy is missing")
    assert "libnbd-bin" in error
    assert error.count("\n") == 1


def test_the_program_of_imageio_is_the_one_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "ovirt-imageio"
    monkeypatch.setenv(IMAGEIO_VARIABLE, str(program))
    assert find_imageio() is None
    program.touch()
    assert find_imageio() == program


def test_mover_gets_the_settings_of_the_environment_but_not_the_benchs_own_variable() -> None:
    environment = mover_environment({IMAGEIO_VARIABLE: "x", "MOVER_WORKER_CONNECTIONS": "4", "PYTHONPATH": "/there"})
    assert IMAGEIO_VARIABLE not in environment
    assert environment["MOVER_WORKER_CONNECTIONS"] == "4"
    assert environment["PYTHONPATH"].endswith(":/there")


def test_a_read_is_found_in_nbdkits_log_once_and_its_completion_not() -> None:
    log = (
        "2026-01-01 10:00:00.000001 connection=1 Extents id=1 offset=0x0 count=0x4000000 req_one=0 ...\n"
        "2026-01-01 10:00:00.000002 connection=1 Read id=2 offset=0x800000 count=0x40000 ...\n"
        "2026-01-01 10:00:00.000003 connection=1 ...Read id=2 return=0\n"
    )
    assert LOGGED_READ.findall(log) == [("800000", "40000")]


@pytest.mark.nbd
def test_a_small_bench_ends_with_a_result_for_each_contender(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["get", "put", "--size", "16MiB", "--runs", "1", "--json"]) == Status.DONE
    results = json.loads(capsys.readouterr().out)
    assert {("get", "mover"), ("get", "nbdcopy"), ("put", "mover"), ("put", "nbdcopy")} <= {
        (each["row"], each["contender"]) for each in results
    }
    assert all(each["median"] > 0 and len(each["runs"]) == 1 for each in results)


@pytest.mark.nbd
def test_tls_is_measured_with_one_connection_and_with_eight(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["tls", "--size", "4MiB", "--runs", "1", "--json"]) == Status.DONE
    results = [each for each in json.loads(capsys.readouterr().out) if each["contender"] == "mover"]
    assert [each["case"] for each in results] == ["GET, 1 connection", "GET, 8 connections", "PUT, 1 connection"]
    assert all(each["median"] > 0 for each in results)


@pytest.mark.slow
@pytest.mark.nbd
def test_what_is_asked_of_a_whole_image_is_measured_and_so_is_what_others_notice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((asking, "FEW", 64), (asking, "MANY", 256), (clients, "WRK_S", 1)):
        monkeypatch.setattr(module, name, value)
    assert main.main(["extents", "checksum", "file", "--size", "1MiB", "--runs", "1", "--json"]) == Status.DONE
    results = json.loads(capsys.readouterr().out)
    found = {(each["row"], each.get("case"), each["contender"]) for each in results}
    assert {
        ("extents", "64 runs, first byte", "mover"),
        ("extents", "64 runs, whole", "mover"),
        ("extents", "lines", "mover on 256"),
        ("extents", "lines, memory", "mover on 256"),
        ("extents", "4 KiB GETs, 99th percentile", "mover beside extents"),
        ("checksum", "whole", "mover"),
        ("checksum", "4 KiB GETs, 99th percentile", "mover beside checksum"),
        ("file", None, "mover by qemu-nbd"),
    } <= found
    assert all(each["median"] > 0 for each in results)


@pytest.mark.nbd
def test_every_other_run_of_the_benchs_image_is_dirty(tmp_path: Path) -> None:
    asking.make_runs(tmp_path / "runs.qcow2", 8)
    with exports.qemu_nbd(tmp_path, tmp_path / "runs.qcow2", "qcow2", read_only=True, bitmap="since") as server:
        context = "qemu:dirty-bitmap:since"
        listed = subprocess.run(
            ["qemu-img", "map", "--image-opts", "--output=json",
             f"driver=nbd,server.type=unix,server.path={server.socket},x-dirty-bitmap={context}"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
    # What qemu-img shows as data is what is not dirty.
    assert [(run["start"], run["length"], run["data"]) for run in json.loads(listed)] == [
        (number * 65536, 65536, number % 2 == 1) for number in range(8)
    ]


@pytest.mark.slow
@pytest.mark.nbd
def test_both_clients_meet_the_same_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Mover's and imageio's, at every task."""
    assert main.main(["client", "--size", "16MiB", "--runs", "1", "--json"]) == Status.DONE
    results = json.loads(capsys.readouterr().out)
    cases = ["download to raw", "download to qcow2", "upload from raw", "download of an empty 1 TiB"]
    contenders = ["mover", *(["imageio's client"] if find_imageio() else [])]
    assert [(each["case"], each["contender"]) for each in results] == [(c, n) for c in cases for n in contenders]
