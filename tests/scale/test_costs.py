"""What each question costs the registry: statements are counted, so that they do not grow unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import event

from mover.library.leases import Judge
from mover.library.queries import Query, Viewer
from mover.library.records import Change, Host, Location, NewImage, Transfer, TransferState, Visibility
from mover.library.registry import migrate
from mover.library.registry.registry import Registry
from mover.library.states import State

# As docs/scale.md says it.
MOST = {
    "show": 4, "list": 4, "create": 7, "claim": 5, "activate": 6, "change": 9, "delete": 12,
    "holders": 2, "to_remove": 1, "renew": 2,
}  # fmt: skip


def test_statements_of_each_question(tmp_path: Path) -> None:
    """None takes more than the document says, and a page of a list as many for ten images as for one."""
    database = f"sqlite:///{tmp_path}/library.sqlite"
    migrate.upgrade(database)
    registry = Registry(database)
    statements = list[str]()
    listened = registry._engine
    event.listen(listened, "before_cursor_execute", lambda *given: statements.append(given[2]))
    counts = dict[str, int]()

    def count(what: str, ask: Callable[[], object]) -> object:
        statements.clear()
        answer = ask()
        counts[what] = sum(not statement.startswith("BEGIN") for statement in statements)
        return answer

    def make(number: int) -> object:
        facts = {"name": "x", "owner": "t", "disk_format": "raw", "container_format": "bare"}
        new = NewImage(id=str(number), visibility=Visibility.PRIVATE, facts=facts, properties={"a": "b"}, tags=("t",))
        return registry.create(new)

    for number in range(10):
        count("create", lambda: make(number))  # noqa: B023
    count("list", lambda: registry.find(Query(Viewer("t"), limit=1)))
    one = counts["list"]
    count("list", lambda: registry.find(Query(Viewer("t"), limit=10)))
    assert counts["list"] == one
    count("show", lambda: registry.get("1"))
    count("claim", lambda: registry.begin_upload("1", frozenset({State.QUEUED}), "host/1.2", token="t" * 32))
    place = Location("file", "file:///x/1", volume="v")
    saving = frozenset({State.SAVING})
    count("activate", lambda: registry.move("1", saving, State.ACTIVE, held_by="t" * 32, location=place, size_bytes=1))
    image = registry.get("1")
    assert image is not None
    count("change", lambda: registry.change(image, Change(facts={"name": "y"}, properties={"c": "d"}, tags=("u",))))
    count("delete", lambda: registry.delete("1"))
    count("holders", registry.holders)
    count("to_remove", lambda: registry.to_remove(0, ["v"]))
    registry.hosts.renew(Host("id", "kvm1"))
    count("renew", lambda: (registry.hosts.renew(Host("id", "kvm1")), registry.hosts.count(60)))
    registry.close()
    assert {what: counts[what] for what in MOST if counts[what] > MOST[what]} == {}
    assert sum(counts.values()) >= sum(MOST.values()) - 15, counts


def test_leases_of_hosts(registry_of_hosts: Registry) -> None:
    """Who has not been seen for so long is dead, and loses what it held; who was never seen is not judged."""
    registry = registry_of_hosts
    image = registry.create(NewImage(id="1", visibility=Visibility.PRIVATE))
    registry.hosts.renew(Host("a", "kvm1", ("v",)))
    registry.hosts.renew(Host("b", "kvm2", ("v", "w")))
    assert registry.hosts.count(60) == 2
    assert [host.name for host in registry.hosts.having("w")] == ["kvm2"]
    assert {host.id for host in registry.hosts.having("v")} == {"a", "b"}
    assert registry.hosts.dead(["a", "b", "never seen"], 60) == set()
    assert registry.hosts.dead(["a", "never seen"], -1) == {"a"}
    registry.begin_upload(image.id, frozenset({State.QUEUED}), "a/1.2")
    assert registry.release("a/1.2", host_dead_s=60) == 0
    assert registry.release("a/1.2", host_dead_s=-1) == 1
    for host in ("a", "b", "never seen"):
        for direction in ("upload", "download"):
            one = Transfer(f"{host}-{direction}", "1", "t", host, TransferState.OPEN, direction, "raw", 1, 1)
            registry.transfers.add(one)
    assert registry.transfers.remove_of_dead("a", True, 60) == 0
    assert [registry.transfers.remove_of_dead(host, True, -1) for host in ("a", "never seen")] == [1, 0]
    assert {one.id for one in registry.transfers.of_image("1")} == {
        "a-download", "b-download", "b-upload", "never seen-download", "never seen-upload",
    }  # fmt: skip
    assert registry.transfers.hosts() == {"a", "b", "never seen"}
    registry.hosts.renew(Host("b", "kvm2"), keeps_volumes=True)
    assert [host.name for host in registry.hosts.having("w")] == ["kvm2"]


def test_who_may_judge() -> None:
    """Not at the start, not after the database was away: all leases are old then."""
    judge = Judge(60)
    assert [judge.renewed(now) for now in (100, 110, 130, 150, 159)] == [False] * 5
    assert judge.renewed(160)
    assert not judge.renewed(200)
    assert [judge.renewed(now) for now in (220, 240, 259)] == [False] * 3
    assert judge.renewed(260)
