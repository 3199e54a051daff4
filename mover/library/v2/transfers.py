"""`/v2/images/{id}/transfers`: an image through `/images/TICKET`, for clients of imageio's contract."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mover.front.sanic_seam import Sent
from mover.library import bridge, times
from mover.library.call import Call
from mover.library.checks import INT64, is_uuid
from mover.library.errors import ApiError
from mover.library.formats import check_complete
from mover.library.records import ImageRecord, Transfer
from mover.library.seam import TooLarge
from mover.library.states import READABLE, State
from mover.library.v2 import images
from mover.serve.messages import GrantUse

# The disk is the file itself in these; in those it has to be looked for.
PLAIN = ("raw", "iso", "ami", "ari", "aki")
VIEWED = ("qcow2", "vmdk", "vdi", "vhd", "vhdx")
# In other containers, only who made it knows where the disk is.
BARE = ("bare", "ami", "ari", "aki")


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST; times in seconds without a request."""

    direction: Literal["upload", "download"]
    format: Literal["raw", "as-is"] = "raw"
    size: Annotated[int, Meta(ge=1, le=INT64)] | None = None
    store: str | None = None
    # After so long the ticket expires, and an upload is dropped.
    timeout: Annotated[int, Meta(ge=1, le=30 * 86400)] = 3600
    # After so long a client that neither takes nor sends a byte is cut off.
    inactivity_timeout: Annotated[int, Meta(ge=1, le=86400)] = 60


async def create(call: Call, image_id: str) -> Sent:
    """Open a transfer: 201 with its ticket's URL."""
    wanted = _wanted(await call.json())
    transfer = await (_upload if wanted.direction == "upload" else _download)(call, image_id, wanted)
    path = f"/v2/images/{transfer.image_id}/transfers/{transfer.id}"
    return await call.send_json(201, await _shown(call, transfer), [("Location", call.url(path))])


def _wanted(body: Any) -> Wanted:
    try:
        return msgspec.convert(body, Wanted)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"The transfer that is wanted: {error}") from error


async def _download(call: Call, image_id: str, wanted: Wanted) -> Transfer:
    image = await call.image(image_id)
    _check_active(call, image)
    if image.state not in READABLE or image.location is None or not image.size_bytes:
        raise ApiError(409, f"Image {image.id} has no data to download: it is {image.state}")
    for name in ("size", "store"):
        if getattr(wanted, name) is not None:
            raise ApiError(400, f"A download takes no {name}: the image has its own")
    disk_format = _viewed(image) if wanted.format == "raw" else None
    size = INT64 if disk_format is not None else image.size_bytes
    if disk_format is not None and image.virtual_size_bytes is not None:
        size = image.virtual_size_bytes
    transfer = bridge.new(image, "download", wanted.format, size, wanted.timeout, call.caller.tenant)
    opened = await bridge.open_download(call.library, image, transfer, disk_format, wanted.inactivity_timeout)
    try:
        _check_active(call, await call.image(image_id))
    except ApiError:  # deactivated meanwhile, by somebody who did not see this one
        await bridge.close(call.library, opened)
        raise
    return opened


def _check_active(call: Call, image: ImageRecord) -> None:
    if image.state is State.DEACTIVATED and not call.caller.is_admin:
        raise ApiError(403, "The requested image has been deactivated. Image data download is forbidden.")


def _viewed(image: ImageRecord) -> str | None:
    """The format that the disk has to be looked for in; None if the image is the disk."""
    if image.container_format in BARE and image.disk_format in PLAIN:
        return None
    if image.container_format in BARE and image.disk_format in VIEWED:
        return image.disk_format
    what = f"an image of format {image.disk_format} in container {image.container_format}"
    raise ApiError(400, f'The disk in {what} cannot be seen: download it with "format": "as-is"')


async def _upload(call: Call, image_id: str, wanted: Wanted) -> Transfer:
    image = await images.find_to_change(call, image_id)
    check_complete(image.disk_format, image.container_format)
    if wanted.size is None:
        raise ApiError(400, 'An upload needs the size of the image in bytes, as "size"')
    limit = call.library.settings.image_size_limit_bytes
    if wanted.size > limit:
        raise TooLarge(f"An image of {wanted.size} bytes is larger than the limit of {limit}")
    if wanted.format == "raw" and image.disk_format not in PLAIN:
        what = f"A disk cannot be written into an image of format {image.disk_format}"
        raise ApiError(400, f'{what}: upload the {image.disk_format} file with "format": "as-is"')
    transfer = bridge.new(image, "upload", wanted.format, wanted.size, wanted.timeout, call.caller.tenant)
    return await bridge.open_upload(call.library, image, transfer, wanted.store, wanted.inactivity_timeout)


# -- those that there are ----------------------------------------------------------------------------------------------


async def list_transfers(call: Call, image_id: str) -> Sent:
    """The caller's transfers of an image."""
    image = await call.image(image_id)
    found = await call.library.ask(lambda registry: registry.transfers.of_image(image.id))
    shown = [await _shown(call, transfer) for transfer in found if _is_callers(call, transfer)]
    return await call.send_json(200, {"transfers": shown})


async def show(call: Call, image_id: str, transfer_id: str) -> Sent:
    """One transfer, and how far it is."""
    return await call.send_json(200, await _shown(call, await _find(call, image_id, transfer_id)))


async def close(call: Call, image_id: str, transfer_id: str) -> Sent:
    """Close it: 204 when an upload's image is active, or with `abort=true` as if it had never been."""
    transfer = await _find(call, image_id, transfer_id)
    if transfer.host != call.library.host:
        raise ApiError(409, "The transfer is another host's: close it there")
    await bridge.close(call.library, transfer, _abort(call))
    return await call.send(204)


def _abort(call: Call) -> bool:
    arguments = call.arguments()
    values = arguments.pop("abort", ["false"])
    if arguments or values not in (["true"], ["false"]):
        raise ApiError(400, "A transfer is closed with abort=true, abort=false, or nothing")
    return values == ["true"]


async def _find(call: Call, image_id: str, transfer_id: str) -> Transfer:
    """A transfer of the caller's. A ticket is as good as its owner's token, for its image: nobody else sees it."""
    found = None
    if is_uuid(image_id) and is_uuid(transfer_id):
        found = await call.library.ask(lambda registry: registry.transfers.get(transfer_id.lower()))
    if found is None or found.image_id != image_id.lower() or not _is_callers(call, found):
        raise ApiError(404, f"Image {image_id[:80]} has no transfer {transfer_id[:80]}")
    return found


def _is_callers(call: Call, transfer: Transfer) -> bool:
    return call.caller.is_admin or (call.caller.tenant is not None and call.caller.tenant == transfer.tenant)


async def _shown(call: Call, transfer: Transfer) -> dict[str, Any]:
    use = await _use(call, transfer)
    path = f"/images/{transfer.ticket}"
    answer: dict[str, Any] = {
        "id": transfer.id,
        "image_id": transfer.image_id,
        "direction": transfer.direction,
        "format": transfer.format,
        "size": None if transfer.size_bytes == INT64 else transfer.size_bytes,
        "store": transfer.store,
        "state": str(transfer.state),
        "timeout": transfer.timeout_s,
        "created_at": times.to_v2(transfer.created_at_us),
        "ticket": transfer.ticket,
        "url": call.url(path),
        "unix_socket": call.library.unix_socket,
    }
    if use is not None:
        answer["expires_at"] = times.to_v2(int((time.time() + use.left_s) * 1e6))
        answer |= {"transferred": use.moved_bytes, "requests": use.requests, "idle_time": int(use.idle_s)}
    return answer


async def _use(call: Call, transfer: Transfer) -> GrantUse | None:
    if transfer.host != call.library.host:
        return None
    return (await bridge.uses_of(call.library, [transfer])).get(transfer.ticket)
