"""The ticket service in the document of all routes; mover/control/imageio.py has its rules."""

from __future__ import annotations

from mover.front.openapi_parts import NUMBER, Json, errors, schema

TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
# What is too large to be meant is taken for the largest.
COUNT: Json = {"type": "integer", "minimum": 0}
LIMITS: Json = {
    "bytes_per_second": {
        "anyOf": [{"type": "null"}, {"const": 0}, {"type": "integer", "minimum": 65536}],
        "description": "Of its bodies together; 0 is no limit, null what the settings say.",
    },
    "requests_most": {
        "type": ["integer", "null"],
        "minimum": 0,
        "description": "Reads and writes at once; 0 and null as there.",
    },
}
# What a ticket is installed with, and what is said of it.
COMMON: Json = {
    "uuid": {"type": "string", "minLength": 1, "description": "The id in the path."},
    "size": COUNT,
    "url": TEXT,
    "timeout": {**COUNT, "description": "Seconds without use after which it expires."},
    "ops": {"type": "array", "items": {"enum": ["read", "write"]}},
    "transfer_id": TEXT,
    "filename": {"type": "string", "maxLength": 1024},
    "sparse": FLAG,
    "dirty": FLAG,
    "inactivity_timeout": {"type": "integer", "minimum": 1},
    "subject": {"type": "string", "maxLength": 4096, "description": "Of the client's certificate."},
    **LIMITS,
}
SCHEMAS: Json = {
    "Ticket": {
        "type": "object",
        "required": ["uuid", "size", "url", "timeout", "ops"],
        "properties": {
            **COMMON,
            "token": {"type": "string", "minLength": 16, "maxLength": 1024, "pattern": "^[!-~]+$"},
        },
    },
    "TicketChange": {
        "type": "object",
        "properties": {"timeout": COUNT, **LIMITS},
        "anyOf": [{"required": [key]} for key in ("timeout", *LIMITS)],
    },
    "TicketState": {
        "type": "object",
        "required": ["uuid", "size", "url", "timeout", "ops", "active", "canceled", "expired", "expires", "idle_time"],
        "properties": {
            **COMMON,
            "active": {**FLAG, "description": "A request uses it."},
            "canceled": FLAG,
            "expired": FLAG,
            "expires": {"type": "integer", "description": "Seconds of this host's uptime."},
            "idle_time": NUMBER,
            "connections": NUMBER,
            "requests": NUMBER,
            "transferred": {**NUMBER, "description": "Bytes of the image that were moved, each counted once."},
            "token": {**FLAG, "description": "Whether it wants one."},
            "dialect": {"enum": ["imageio", "cloudstack"]},
        },
    },
}
ID: Json = {
    "name": "ticket_id",
    "in": "path",
    "required": True,
    "description": "One segment, at most 255 bytes of UTF-8.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
SERVERS = [{"url": "http+unix://ticket-socket", "description": "--ticket-socket, on this host only."}]
# What any request may get there, beside what any request to Mover may.
OF_THE_SOCKET = (403, 413, 500, 503)


def paths() -> Json:
    """Of the ticket service's socket."""
    state = _json("The ticket, and how it is used.", schema("TicketState"))
    states = _json("All of them.", {"type": "array", "items": schema("TicketState")})
    done, gone = {"description": "Done."}, {"description": "Gone, and so are its requests."}
    one: Json = {
        "servers": SERVERS,
        "parameters": [ID],
        "get": {"summary": "A ticket, its use and progress", "responses": {"200": state, **_errors(404)}},
        "put": {"summary": "Install a ticket", **_takes("Ticket"), "responses": {"200": done, **_errors()}},
        "patch": {
            "summary": "Extend a ticket, or change its limits",
            **_takes("TicketChange"),
            "responses": {"200": done, **_errors(404)},
        },
        "delete": {"summary": "Remove a ticket", "responses": {"204": gone, **_errors(409)}},
    }
    every: Json = {
        "servers": SERVERS,
        "get": {"summary": "All tickets", "responses": {"200": states, **_errors()}},
        "delete": {"summary": "Remove all that were installed here", "responses": {"204": gone, **_errors(409)}},
    }
    return {"/tickets/{ticket_id}": one, "/tickets/": every}


def _json(description: str, body: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": body}}}


def _takes(name: str) -> Json:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema(name)}}}}


def _errors(*statuses: int) -> Json:
    """Those of this socket; its answers have no request's name."""
    found = errors(*statuses, *OF_THE_SOCKET)
    for response in found.values():
        del response["headers"]
    return found
