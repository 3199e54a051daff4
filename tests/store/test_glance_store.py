"""glance_store's own file driver and this one over the same cases. DIFFERENCES are those of docs/file-store.md."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from config.store_settings import FileStore
from config.stores import check_store
from tests.harness.mover import ROOT
from tests.store.shop import listing, shop, store_in
from workers.lane.store_format import Confirm, Done, Publish, Published, Receive, Receiving, Refused, Remove
from workers.store.files.preparing import prepare

GLANCE = ROOT / ".venv-glance-store" / "bin" / "python"
PROGRAM = Path(__file__).with_name("glance_program.py")
Glance = Callable[[dict[str, Any]], list[dict[str, Any]]]
IMAGE = "5a5a4c1e-8f0e-4b53-9c6c-0d5a5f3a1e22"
KIB = 1024

# Glance's names of what a store refuses, and ours.
SAME = {
    "Duplicate": "duplicate", "StorageFull": "full", "StorageWriteDenied": "denied", "Invalid": "wrong-size",
    "NotFound": "not-there", "BadStoreConfiguration": "bad-configuration",
}  # fmt: skip

# Each a row of the table in docs/file-store.md: what Glance does, what Mover does.
DIFFERENCES = {
    "delete of what is not there": ("not-there", "ok"),
    "metadata of a mountpoint that only begins alike": ("a", ""),
}


def add(length: int = 100, size: int | None = None, **more: Any) -> dict[str, Any]:
    whole = length + more.get("zeros", 0)
    return {"do": "add", "id": IMAGE, "length": length, "size": whole if size is None else size, **more}


def content(step: dict[str, Any]) -> bytes:
    return hashlib.shake_128(step["id"].encode()).digest(step["length"]) + bytes(step.get("zeros", 0))


@pytest.fixture(scope="module")
def glance() -> Iterator[Glance]:
    """What Glance's own store makes of a case; one process of it for all, since to load it takes a second."""
    if not GLANCE.exists():
        reason = "glance_store is missing: `.ci/setup glance-store` installs it"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    with subprocess.Popen([GLANCE, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        cases, outcomes = process.stdin, process.stdout

        def outcome(case: dict[str, Any]) -> list[dict[str, Any]]:
            print(json.dumps(case), file=cases, flush=True)
            found: list[dict[str, Any]] = json.loads(outcomes.readline())
            for one in found:
                if "error" in one:
                    one["error"] = SAME[one["error"]]
            return found

        yield outcome


async def mover(case: dict[str, Any]) -> list[dict[str, Any]]:
    settings = {name: case[name] for name in ("file_mode", "metadata_file") if name in case}
    store = store_in(*case["directories"], thin=case.get("thin", False), **{"file_mode": "0", **settings})
    try:
        check_store(store, "the case")
    except ConfigError:
        return [{"error": "bad-configuration"}]
    prepare(store)
    return [await step_of_mover(store, step) for step in case["steps"]]


async def step_of_mover(store: FileStore, step: dict[str, Any]) -> dict[str, Any]:
    if step["do"] == "delete":
        async with shop(store, "") as keeper:
            answer = await keeper.ask(Remove(step["uri"]))
            return {} if isinstance(answer, Done) else {"error": answer.why.value}  # type: ignore[union-attr]
    data = content(step)
    async with shop(store, step["id"]) as image:
        begun = await image.ask(Receive(step["id"], "sha512", "", 0, step["size"] or None))
        if isinstance(begun, Refused):
            return {"error": begun.why.value}
        assert isinstance(begun, Receiving)
        completions = await image.write(begun.session, data)
        if any(completion.value for completion in completions):
            await image.roll_back(begun.session)
            return {"error": "wrong-size"}
        answer = await image.ask(Publish(begun.session))
        if isinstance(answer, Refused):
            return {"error": answer.why.value}
        assert isinstance(answer, Published)
        await image.ask(Confirm(step["id"], answer.uri))
        found = os.stat(answer.uri[7:])
        return {
            "uri": answer.uri, "size": answer.size, "md5": answer.md5, "sha512": answer.hash_value,
            "metadata": answer.metadata, "mode": oct(found.st_mode & 0o777), "blocks": found.st_blocks,
        }  # fmt: skip


async def both(glance: Glance, room: Path, **case: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The case on each, in rooms of the same names that are emptied in between."""
    theirs = glance({"directories": [str(room / "images")], **case})
    for path in sorted(room.rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() else path.rmdir() if path.name != "kept" else None
    ours = await mover({"directories": [str(room / "images")], **case})
    for one in (*theirs, *ours):
        one.pop("blocks", None)
    return theirs, ours


@pytest.mark.parametrize("steps", [
    [add()], [add(0, 0)], [add(300 * KIB)], [add(100, 0)],
    [add(100, 99)], [add(100, 101)],
    [add(), add()],
    [add(), {"do": "delete", "uri": "IMAGE"}, add(7)],
])  # fmt: skip
async def test_both_take_and_refuse_the_same(
    loop: object, glance: Glance, room: Path, steps: list[dict[str, Any]]
) -> None:
    steps = [{**step, "uri": f"file://{room}/images/{IMAGE}"} if step["do"] == "delete" else step for step in steps]
    theirs, ours = await both(glance, room, steps=steps)
    assert theirs == ours


@pytest.mark.parametrize("file_mode", ["0", "640", "644", "600", "440"])
async def test_both_give_files_the_same_mode_and_let_readers_into_the_directory(
    loop: object, glance: Glance, room: Path, file_mode: str
) -> None:
    images = room / "images"
    images.mkdir(mode=0o700)
    theirs = glance({"directories": [str(images)], "file_mode": file_mode, "steps": [add()]})
    their_directory = images.stat().st_mode & 0o011
    (images / IMAGE).unlink()
    images.chmod(0o700)
    ours = await mover({"directories": [str(images)], "file_mode": file_mode, "steps": [add()]})
    assert theirs[0]["mode"] == ours[0]["mode"]
    assert images.stat().st_mode & 0o011 == their_directory


@pytest.mark.parametrize("directories", [["a:1", "b:2"], ["a", "b:1"], ["a:3", "b"]])
async def test_both_fill_the_highest_priority_first(
    loop: object, glance: Glance, room: Path, directories: list[str]
) -> None:
    theirs, ours = await both(glance, room, directories=[f"{room}/{one}" for one in directories], steps=[add()])
    assert theirs == ours


@pytest.mark.parametrize(
    "case",
    [{"directories": ["/x/images:1", "/x/images:2"]}, {"directories": ["/dev/shm/mover-never"], "file_mode": "240"}],
)
async def test_both_refuse_the_same_configuration(loop: object, glance: Glance, case: dict[str, Any]) -> None:
    case = {**case, "steps": []}
    assert glance(case) == [{"error": "bad-configuration"}]
    assert await mover(case) == [{"error": "bad-configuration"}]


async def test_more_than_there_is_room_for_is_refused_by_both(loop: object, glance: Glance, room: Path) -> None:
    free = os.statvfs(room)
    theirs, ours = await both(glance, room, steps=[add(10, 2 * free.f_bavail * free.f_frsize)])
    assert theirs == ours == [{"error": "full"}]


async def test_holes_are_where_glance_has_them_and_smaller_ones_too(loop: object, glance: Glance, room: Path) -> None:
    for kib in (64, 4):
        step = add(64 * KIB + 1, zeros=kib * KIB * 16 - 1)
        images = room / f"images-{kib}"
        theirs = glance({"directories": [str(images)], "thin": True, "steps": [step]})
        (images / IMAGE).unlink()
        ours = await mover({"directories": [str(images)], "thin": True, "steps": [step]})
        assert ours[0]["blocks"] <= theirs[0]["blocks"]
        assert (theirs[0]["md5"], theirs[0]["sha512"]) == (ours[0]["md5"], ours[0]["sha512"])


async def test_the_metadata_file_says_the_same_but_where_glance_takes_a_name_that_begins_alike(
    loop: object, glance: Glance, room: Path
) -> None:
    kept = room / "kept"
    kept.mkdir()
    file = kept / "metadata"
    for mountpoint, expected in ((room / "images", "same"), (room / "imag", "a mountpoint that only begins alike")):
        content = [{"id": "a", "mountpoint": str(mountpoint)}, {"id": "b", "mountpoint": "/nowhere"}]
        file.write_text(json.dumps(content))
        case = {"directories": [str(room / "images")], "metadata_file": str(file), "steps": [add()]}
        theirs = glance(case)
        (room / "images" / IMAGE).unlink()
        ours = await mover(case)
        for name in listing(room / "images"):
            (room / "images" / name).unlink()
        found = (theirs[0]["metadata"].get("id", ""), ours[0]["metadata"].get("id", ""))
        different = DIFFERENCES["metadata of a mountpoint that only begins alike"]
        assert found == (("a", "a") if expected == "same" else different)


async def test_a_delete_of_nothing_is_no_error_of_ours(loop: object, glance: Glance, room: Path) -> None:
    theirs, ours = await both(glance, room, steps=[{"do": "delete", "uri": f"file://{room}/images/{IMAGE}"}])
    found = tuple(one[0].get("error", "ok") for one in (theirs, ours))
    assert found == DIFFERENCES["delete of what is not there"]


def test_glances_bugs_of_reading_are_still_there_and_the_docs_still_true(glance: Glance, room: Path) -> None:
    """With an offset it promises the whole file's size. Ours is Content-Length, which the views' tests compare."""
    uri = f"file://{room}/images/{IMAGE}"
    [_, read] = glance({"directories": [f"{room}/images"], "steps": [add(), {"do": "read", "uri": uri, "offset": 60}]})
    assert (read["bytes"], read["size"]) == (40, 100)


def test_every_difference_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "file-store.md").read_text()
    assert [name for name in DIFFERENCES if name not in text] == []
