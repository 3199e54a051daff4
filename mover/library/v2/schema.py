"""The JSON schemas that v2 publishes; glanceclient builds its models from them."""

from __future__ import annotations

from typing import Any

from mover.library.checks import INT32
from mover.library.formats import CONTAINER_FORMATS, DISK_FORMATS

UUID = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
Schema = dict[str, Any]


def _text(description: str, most: int | None = None, **more: Any) -> Schema:
    limit = {} if most is None else {"maxLength": most}
    return {"type": "string", "description": description, **limit, **more}


def _optional(description: str, most: int | None = None, **more: Any) -> Schema:
    return {**_text(description, most, **more), "type": ["null", "string"]}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _number(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


IMAGE_PROPERTIES: Schema = {
    "id": _text("An identifier for the image", pattern=UUID),
    "name": _optional("Descriptive name for the image", 255),
    "status": _text(
        "Status of the image",
        readOnly=True,
        enum=[
            *("queued", "saving", "uploading", "importing", "active", "killed"),
            *("deleted", "pending_delete", "deactivated"),
        ],
    ),
    "visibility": _text("Scope of image accessibility", enum=["community", "public", "private", "shared"]),
    "protected": _flag("If true, image will not be deletable."),
    "os_hidden": _flag("If true, image will not appear in default image list response."),
    "checksum": _optional("md5 hash of image contents.", 32, readOnly=True),
    "os_hash_algo": _optional("Algorithm to calculate the os_hash_value", 64, readOnly=True),
    "os_hash_value": _optional("Hexdigest of the image contents using os_hash_algo", 128, readOnly=True),
    "owner": _optional("Owner of the image", 255),
    "size": {"type": ["null", "integer"], "readOnly": True, "description": "Size of image file in bytes"},
    "virtual_size": {"type": ["null", "integer"], "readOnly": True, "description": "Virtual size of image in bytes"},
    "container_format": _optional("Format of the container", enum=[None, *CONTAINER_FORMATS]),
    "disk_format": _optional("Format of the disk", enum=[None, *DISK_FORMATS]),
    "created_at": _text("Date and time of image registration", readOnly=True),
    "updated_at": _text("Date and time of the last image modification", readOnly=True),
    "tags": {
        "type": "array",
        "items": {"type": "string", "maxLength": 255},
        "description": "List of strings related to the image",
    },
    "self": _text("The URL of the image", readOnly=True),
    "file": _text("An image file url", readOnly=True),
    "schema": _text("An image schema url", readOnly=True),
    "stores": _text("Store in which image data resides", readOnly=True),
    "min_ram": _number("Amount of ram (in MB) required to boot image.", minimum=0, maximum=INT32),
    "min_disk": _number("Amount of disk space (in GB) required to boot image.", minimum=0, maximum=INT32),
}

# Without additionalProperties the client refuses every property that is not one of these.
IMAGE: Schema = {
    "name": "image",
    "properties": IMAGE_PROPERTIES,
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}

MEMBER: Schema = {
    "name": "member",
    "properties": {
        "member_id": _text("An identifier for the image member (tenantId)"),
        "image_id": _text("An identifier for the image", pattern=UUID),
        "created_at": _text("Date and time of image member creation"),
        "updated_at": _text("Date and time of last modification of image member"),
        "status": _text("The status of this image member", enum=["pending", "accepted", "rejected"]),
        "schema": _text("", readOnly=True),
    },
}


TASK: Schema = {
    "name": "task",
    "properties": {
        "id": _text("An identifier for the task", pattern=UUID),
        "type": _text("What the task does", readOnly=True),
        "status": _text(
            "How far it is; `state` says whether it was cancelled",
            enum=["pending", "processing", "success", "failure"],
        ),
        "owner": _optional("The tenant that began it"),
        "image_id": _text("The image that it makes, copies or exports", pattern=UUID),
        "request_id": _optional("`x-openstack-request-id` of the answer to the request that began it", readOnly=True),
        "user_id": _optional("The user that began it"),
        "input": {"type": ["null", "object"], "description": "What was asked"},
        "result": {"type": ["null", "object"], "description": "What came of it"},
        "message": _text("Why it failed, or is tried again"),
        "created_at": _text("Datetime when this resource was created", readOnly=True),
        "updated_at": _text("Datetime when this resource was updated", readOnly=True),
        "expires_at": _optional("Datetime when this resource is forgotten", readOnly=True),
        "self": _text("", readOnly=True),
        "schema": _text("", readOnly=True),
    },
    "additionalProperties": True,
}


def _collection(name: str, one: Schema) -> Schema:
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": one},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


SCHEMAS: dict[str, Schema] = {
    "image": IMAGE,
    "images": _collection("images", IMAGE),
    "member": MEMBER,
    "task": TASK,
    "tasks": _collection("tasks", TASK),
    "members": _collection("members", MEMBER),
}
