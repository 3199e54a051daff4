"""`[[store]]` with `type = "s3"`: what may be said of a bucket, and what is shown of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from config.documentation import commented_toml
from config.errors import ConfigError
from config.load import load
from config.settings import FileStore, HttpStore, S3Store
from config.stores import object_of, uri_of_object

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
