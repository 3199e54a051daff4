"""What the document of all routes is put together from."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NUMBER = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
# Of the query: as many digits as are read.
DIGITS = {"type": "integer", "minimum": 0, "maximum": 10**19 - 1}
FLAG = {"type": "string", "enum": ["y", "n", "yes", "no", "true", "false", "1", "0"]}
BINARY: Json = {"application/octet-stream": {"schema": {}}}
REQUEST_ID = {
    "X-Request-Id": {
        "description": "The request's name in the log: the client's own, or one that was made.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,64}$"},
    }
}
# What any request about an image may be answered with.
OF_AN_IMAGE = (400, 401, 403, 404, 409, 500, 502, 503)
MEANINGS = {
    400: "The request is wrong: `error` names the value and the limit.",
    401: "The ticket wants its bearer token.",
    403: "The ticket or the export does not allow it, or the ticket is gone.",
    404: "No such image, path, or dirty bitmap.",
    405: "The path does not have this method; `Allow` has those that it has.",
    408: "The request did not arrive in time.",
    409: "Another request holds the image, which is exclusive.",
    413: "The body is larger than 64 KiB.",
    415: "Neither JSON nor a range of bytes.",
    416: "The image has no such range; `Content-Range` has its size.",
    417: "An `Expect` other than `100-continue`.",
    431: "The head is too large.",
    500: "The NBD server, or the state directory, answered with an error; `lost`: writes are gone, unflushed.",
    501: "The NBD server cannot do it.",
    502: "The export cannot be reached.",
    503: "Try again after `Retry-After` seconds: too many requests at once, or a part is not there.",
}


def schema(name: str) -> Json:
    """A reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, content: Json | None = None, **headers: str) -> Json:
    """One response; `headers` by their description."""
    shown = {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
    }
    response: Json = {"description": description, "headers": {**REQUEST_ID, **shown}}
    if content is not None:
        response["content"] = content
    return response


def of_json(description: str, body: Json, **headers: str) -> Json:
    """A response of JSON."""
    return answer(description, {"application/json": {"schema": body}}, **headers)


def errors(*statuses: int) -> Json:
    """The responses of these errors, and of those that any request may get."""
    return {str(one): of_json(MEANINGS[one], schema("Error")) for one in sorted({*statuses, 400, 405, 408, 417, 431})}


def query(name: str, wanted: Json, description: str) -> Json:
    """A parameter of the query."""
    return {"name": name, "in": "query", "required": False, "schema": wanted, "description": description}


def header(name: str, pattern: str, description: str, example: str) -> Json:
    """A header of the request."""
    wanted = {"type": "string", "pattern": pattern}
    return {
        "name": name, "in": "header", "required": False, "schema": wanted, "description": description,
        "example": example,
    }  # fmt: skip
