"""Runs in .venv-glance-store: the genuine file driver over the cases of test_glance_store.py.

A line of JSON in, a line of JSON out, until the input ends. A case is {"directories", "file_mode", "metadata_file",
"thin", "steps"}; a step is {"do": "add", "id", "length", "zeros", "size"}, {"do": "delete", "uri"} or {"do": "read",
"uri", "offset"}. What came of each step is one object.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from typing import Any

import glance_store
from glance_store import exceptions, location
from glance_store._drivers import filesystem
from oslo_config import cfg


def content(step: dict[str, Any]) -> bytes:
    data = hashlib.shake_128(step["id"].encode()).digest(step["length"])
    return data + bytes(step.get("zeros", 0))


def driver(case: dict[str, Any]) -> Any:
    conf = cfg.ConfigOpts()
    glance_store.register_opts(conf)
    conf([], project="cases", default_config_files=[])
    conf.set_override("filesystem_store_datadir", None, group="glance_store")
    conf.set_override("filesystem_store_datadirs", case["directories"], group="glance_store")
    conf.set_override("filesystem_store_file_perm", int(case.get("file_mode", "0")), group="glance_store")
    conf.set_override("filesystem_store_metadata_file", case.get("metadata_file"), group="glance_store")
    conf.set_override("filesystem_thin_provisioning", case.get("thin", False), group="glance_store")
    store = filesystem.Store(conf)
    store.configure()
    store.configure_add()  # configure() has swallowed what is wrong with adding
    return store


def do(store: Any, step: dict[str, Any], conf: Any) -> dict[str, Any]:
    if step["do"] == "add":
        data = content(step)
        uri, size, md5, multihash, metadata = store.add(step["id"], io.BytesIO(data), step["size"], "sha512")
        return {
            "uri": uri, "size": size, "md5": md5, "sha512": multihash, "metadata": metadata,
            "mode": oct(os.stat(uri[7:]).st_mode & 0o777), "blocks": os.stat(uri[7:]).st_blocks,
        }  # fmt: skip
    where = location.Location("file", filesystem.StoreLocation, conf, uri=step["uri"])
    if step["do"] == "delete":
        store.delete(where)
        return {}
    chunks, size = store.get(where, offset=step["offset"])
    return {"bytes": len(b"".join(chunks)), "size": int(size)}


def outcome(case: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        store = driver(case)
    except exceptions.BadStoreConfiguration:
        return [{"error": "BadStoreConfiguration"}]
    found = []
    for step in case["steps"]:
        try:
            found.append(do(store, step, store.conf))
        except exceptions.GlanceStoreException as error:
            found.append({"error": type(error).__name__})
    return found


for line in sys.stdin:
    print(json.dumps(outcome(json.loads(line))), flush=True)
