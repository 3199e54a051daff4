"""`[[store]]` with `type = "s3"`, `"swift"` and `"webhdfs"`: what may be said of a bucket, and what is shown of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from config.documentation import commented_toml
from config.errors import ConfigError
from config.load import load
from config.store_settings import FileStore, HttpStore, ObjectStore, S3Store
from config.stores import object_of, store_named, uri_of_object

GOOD = {"type": "s3", "id": "cellar", "endpoint": "https://s3.example.org:9000", "bucket": "images", "prefix": "a/b/"}


def written(tmp_path: Path, *stores: dict[str, str]) -> Path:
    file = tmp_path / "mover.toml"
    tables = ("\n".join(["[[store]]", *(f'{key} = "{value}"' for key, value in store.items())]) for store in stores)
    file.write_text("\n".join(tables))
    return file


def test_stores_of_both_kinds_stand_side_by_side_and_are_shown_as_they_are_read(tmp_path: Path) -> None:
    second = GOOD | {"id": "attic", "credentials_file": "/etc/mover/attic"}
    file = written(tmp_path, GOOD, second)
    file.write_text(file.read_text() + '\n[[store]]\ntype = "file"\nid = "disk"\ndirectories = ["/srv/images"]\n')
    settings = load({}, {}, file)
    assert [type(store) for store in settings.store] == [S3Store, S3Store, FileStore, HttpStore]
    shown = tomllib.loads("\n".join(commented_toml(settings, {})))
    assert [(store["type"], store["id"]) for store in shown["store"]] == [
        ("s3", "cellar"),
        ("s3", "attic"),
        ("file", "disk"),
        ("http", "http"),
    ]
    file.write_text("\n".join(commented_toml(settings, {})))
    assert load({}, {}, file) == settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint", "https://key:secret@s3.example.org"),
        ("endpoint", "s3.example.org"),
        ("endpoint", "https://s3.example.org/path"),
        ("bucket", "Images"),
        ("prefix", "/a/"),
        ("prefix", "../"),
        ("prefix", "a"),
        ("region", "a b"),
        ("credentials_file", "relative"),
        ("secret", "it has no place here"),
        ("type", "tape"),
    ],
)
def test_what_cannot_be_is_refused_and_named(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"\[\[store\]\]|store 'cellar'") as refused:
        load({}, {}, written(tmp_path, GOOD | {key: value}))
    assert "secret@" not in str(refused.value)


def test_a_location_names_an_image_of_its_bucket_and_prefix_and_nothing_else() -> None:
    store = S3Store("cellar", "http://127.0.0.1", "images", prefix="a/b/")
    assert uri_of_object(store, "a/b/x.1") == "s3://images/a/b/x.1"
    assert object_of(store, "s3://images/a/b/x.1") == "a/b/x.1"
    for uri in (
        "s3://images/a/x.1",
        "s3://other/a/b/x.1",
        "s3://images/a/b/.mover/x.1",
        "s3://images/a/b/../x",
        "s3://images/a/b/",
        "file:///a/b/x.1",
    ):
        assert object_of(store, uri) is None


SWIFT = {"type": "swift", "id": "attic", "auth_url": "https://keystone.example.org:5000/v3", "container": "disks"}
HDFS = {"type": "webhdfs", "id": "lake", "endpoint": "http://namenode.example.org:9870", "directory": "/mover/images"}


def test_a_store_is_named_by_its_id_or_by_a_scheme_of_its_type(tmp_path: Path) -> None:
    stores = load({}, {}, written(tmp_path, GOOD, SWIFT, HDFS, GOOD | {"id": "swift"})).store
    for name, found in (("cellar", 0), ("s3", 0), ("attic", 1), ("swift", 3), ("hdfs", 2), ("webhdfs", 2)):
        assert store_named(stores, name) is stores[found], name
    assert store_named(stores, "tape") is None
    assert [uri_of_object(store, "x.1") for store in stores[1:3] if isinstance(store, ObjectStore)] == [
        "swift://disks/x.1",
        "webhdfs:///mover/images/x.1",
    ]


@pytest.mark.parametrize(
    ("store", "key", "value"),
    [
        (SWIFT, "auth_url", "https://user:secret@keystone.example.org/v3"),
        (SWIFT, "auth_url", "keystone.example.org"),
        (SWIFT, "container", "a/b"),
        (SWIFT, "auth", "v2"),
        (SWIFT, "token", "it has no place here"),
        (HDFS, "endpoint", "http://user:secret@namenode.example.org"),
        (HDFS, "directory", "relative"),
        (HDFS, "directory", "/a/../b"),
        (HDFS, "credentials_file", "relative"),
    ],
)
def test_what_cannot_be_of_swift_or_hdfs_is_refused_and_named(
    tmp_path: Path, store: dict[str, str], key: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=r"\[\[store\]\]|store 'lake'") as refused:
        load({}, {}, written(tmp_path, store | {key: value}))
    assert "secret@" not in str(refused.value)
