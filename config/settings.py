"""Every setting: its section, its name, its unit and its reason. `config/load.py` reads them; those of stores are in
config/store_settings.py.

Sections are TOML tables; a field's comment is its documentation (`mover config show` prints it).
Units are in the names: `_bytes`, `_s`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from config.store_settings import Store

Positive = Annotated[int, Meta(ge=1)]
# At most a day: more is a unit mistaken, and infinity does not survive JSON.
Seconds = Annotated[float, Meta(gt=0, le=86400)]
# In the environment and in flags, separated by commas.
Texts = tuple[Annotated[str, Meta(min_length=1)], ...]
Rate = Annotated[int, Meta(ge=0, le=2**40)]
Seats = Annotated[int, Meta(ge=1, le=4096)]
Ports = tuple[Annotated[int, Meta(ge=1, le=65535)], ...]


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[serve]`: where the service listens and how many processes serve it."""

    # Address of the TCP listener. Never empty: that would mean every address of the host.
    listen: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    # Port of the TCP listener; 0 takes a free one and prints it.
    port: Annotated[int, Meta(ge=0, le=65535)] = 54322
    # Path of the same service's Unix socket for clients on this host; none if empty.
    unix_socket: str = ""
    # Path of CloudStack's control socket, mode 0660: its agent registers and unregisters transfers; none if empty.
    control_socket: str = ""
    # Path of imageio's ticket service, HTTP, mode 0660: a host's agent (oVirt's vdsm) installs tickets there; none if
    # empty.
    ticket_socket: str = ""
    # Directory of transfers, a JSON file each, named by the transfer's id; none if empty. Who may write there may
    # have Mover open what it can open.
    transfer_dir: str = ""
    # Front-end processes; 0 is half the cores, at least one.
    front_ends: Annotated[int, Meta(ge=0, le=256)] = 0
    # Directory for tickets, the library and sockets of our own, created 0700; empty is /var/lib/mover as root,
    # else $XDG_STATE_HOME/mover.
    state_dir: str = ""
    # Who to be once everything that only root may open is open: the service is started as root, and serves as this
    # user. Empty stays who it was started as.
    user: str = ""
    # The user's group, to which the Unix sockets belong; empty is the user's own.
    group: str = ""
    # Other groups whose sockets and disks it may open, such as kvm or disk.
    groups: Texts = ()
    # Whether the TCP listener serves /metrics, which names no image and no client: if it is bound to a loopback
    # address, always, or never. The Unix socket always does.
    metrics: Literal["loopback", "always", "never"] = "loopback"
    # How long SIGTERM waits for requests in flight before they are cut off.
    drain_s: Seconds = 30.0


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tls]`: HTTPS on the TCP listener; the Unix socket stays plain. SIGHUP reads the files again."""

    # Speak TLS, 1.2 and later only.
    enabled: bool = False
    # The server's certificate and those that lead to its authority, PEM.
    cert_file: str = ""
    # The certificate's private key, PEM, without a passphrase; may be the same file.
    key_file: str = ""
    # Authorities whose client certificates are accepted, PEM; needed unless client_certificates is "none".
    client_ca_file: str = ""
    # Whether clients are asked for a certificate, and whether one without is let in. A ticket that is bound to a
    # certificate's subject needs one in any case.
    client_certificates: Literal["none", "optional", "required"] = "none"
    # A client that has not finished the handshake after so long is cut off.
    handshake_s: Seconds = 10.0


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: what is written to standard error."""

    # Least level that is written.
    level: Literal["debug", "info", "warning", "error"] = "info"
    # One line of key=value text, or one JSON object, an event.
    format: Literal["text", "json"] = "text"
    # One line for each request that has ended, at level info. journald drops lines that come by thousands a second.
    requests: bool = True


class FrontSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[front]`: how front ends treat clients, and their lanes."""

    # Bytes of one slot, the unit of dispatch: 256 KiB to 1 MiB measured best, 4 MiB half as fast.
    slot_bytes: Annotated[int, Meta(ge=65536, le=4194304, multiple_of=4096)] = 1048576
    # Slots of one lane's arena; slot_bytes * slots of shared memory per front end and image in use.
    slots: Annotated[int, Meta(ge=2, le=1024)] = 32
    # Most slots one request holds at once, its queue depth.
    request_slots: Annotated[int, Meta(ge=1, le=1024)] = 8
    # A client that neither takes nor sends a byte for so long is cut off.
    progress_s: Seconds = 60.0
    # A client that moves a body slower than so many bytes a second, counted over progress_s, is cut off, too.
    least_bytes_s: Annotated[int, Meta(ge=1, le=1073741824)] = 1024
    # A request's head must be complete so long after its first byte.
    head_s: Seconds = 10.0
    # A connection without a request is closed after so long.
    keep_alive_s: Seconds = 120.0
    # How long jobs wait for a killed worker's successor before they fail with 502.
    replay_s: Seconds = 30.0
    # How long opening a lane may take, worker start and NBD connect included.
    open_s: Seconds = 15.0
    # A lane without a request is closed after so long, and with its last lane the worker.
    lane_idle_s: Seconds = 60.0
    # Value of Access-Control-Allow-Origin; empty sends none.
    cors_origin: str = ""
    # Whose answer an id gets that no ticket is remembered for: cloudstack's 404, or imageio's 403 and a closed
    # connection.
    unknown_id: Literal["cloudstack", "imageio"] = "cloudstack"


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[limits]`: how many connections there are and requests move data at once, over all front ends.

    Reads are GET and checksums, writes PUT, and PATCH that zeroes or has a range; extents, flushes and questions go by.
    """

    # Reads of one image at once, as OPTIONS advertises. Twice front.slots: each slot moves data for one request, and as
    # many again may have clients that do not read, without keeping others out.
    max_readers: Seats = 64
    # Writes to one image at once, as OPTIONS advertises.
    max_writers: Seats = 64
    # Reads of all images together; 0 is no limit.
    host_readers: Annotated[int, Meta(ge=0, le=4096)] = 0
    # Writes to all images together; 0 is no limit.
    host_writers: Annotated[int, Meta(ge=0, le=4096)] = 0
    # One request more waits for its turn, images in turn, or is rejected: 503 with Retry-After, or 409 if exclusive.
    mode: Literal["wait", "reject"] = "wait"
    # How long a request waits for its turn before it gets 503.
    wait_s: Seconds = 30.0
    # Connections of all clients together, the Unix socket's and those in their TLS handshake included.
    connections: Annotated[int, Meta(ge=1, le=1000000)] = 4096
    # Connections of one client: of an IPv4 address, or an IPv6 network of 64 bits; clients of the Unix socket are not
    # told apart. A proxy before Mover is one client.
    client_connections: Annotated[int, Meta(ge=1, le=1000000)] = 1024
    # One request at a time holds an image, whatever it does: how CloudStack's single-file servers behaved.
    exclusive: bool = False


class QosSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[qos]`: bytes a second that bodies move, reads and writes together, over all front ends; and requests at once.

    0 is no limit, 65536 the lowest one. A ticket of its own may say otherwise for itself.
    """

    # Of all images together. Images that want more share it fairly, however many clients each has.
    host_bytes_s: Rate = 0
    # Of each image, by whatever tickets.
    image_bytes_s: Rate = 0
    # Of each ticket that does not say (bytes_per_second).
    ticket_bytes_s: Rate = 0
    # Reads and writes at once of each ticket that does not say (requests_most); one more waits, or is rejected, as
    # limits.mode says.
    ticket_requests: Annotated[int, Meta(ge=0, le=4096)] = 0


class AllowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[allow]`: what tickets may name, whoever installs them. The settings' own images may be anything.

    A path is judged by where its links lead, when the ticket is installed and whenever it is opened.
    """

    # Directories of files, or single paths, that tickets may name. A directory in /dev allows the devices that its
    # links lead to, as a volume group's does. Mover's state directory is never served.
    files: Texts = ("/var/lib/libvirt/images", "/mnt", "/rhev/data-center")
    # Directories of NBD servers' Unix sockets.
    nbd_sockets: Texts = ("/run", "/tmp", "/var/lib/libvirt")
    # Hosts of NBD servers: names as they stand in the ticket, addresses, networks like 10.0.0.0/8; "*" is any.
    nbd_hosts: Texts = ("localhost", "127.0.0.0/8", "::1")
    # Directories of TLS certificates and keys that URLs of tickets (nbds://) may name.
    tls_files: Texts = ("/etc/pki",)


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[worker]`: how image workers treat NBD servers."""

    # NBD connections per export where the server says multi-conn; more than one only then. A second one measured 9 %
    # faster with qemu-nbd, since each socket holds little; a fourth no more.
    connections: Annotated[int, Meta(ge=1, le=16)] = 2
    # Most commands in flight on one connection.
    queue_depth: Annotated[int, Meta(ge=1, le=256)] = 32
    # How long connecting and negotiating may take.
    connect_s: Seconds = 5.0
    # A command unanswered for so long is taken for a lost connection.
    command_s: Seconds = 60.0
    # How long a lost connection is retried, with backoff, before its jobs fail.
    reconnect_s: Seconds = 20.0
    # How long a fence waits for the old connection's end.
    fence_s: Seconds = 5.0
    # How long ranges stay in doubt when a write of a dead worker, or of a lost connection, may still land: qemu-nbd
    # was seen to apply such writes for 2 s. Writes over them wait, but for the same job's that is submitted again.
    settle_s: Seconds = 5.0
    # A worker without lanes leaves after so long.
    idle_s: Seconds = 10.0
    # Warm qemu's allocator with one large read on local sockets: a GET of 1 GiB took 0.91 s of a qemu-nbd that nothing
    # had warmed, most of it page faults, and 0.4 s of a warm one.
    warm_allocator: bool = True


class SupervisorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[supervisor]`: restarts and host-wide limits."""

    # Longest pause between restarts of a process that keeps dying; the first restart is immediate.
    backoff_s: Seconds = 5.0
    # A worker is given up after so many deaths without one completed job in between.
    deaths: Positive = 5
    # A front end or worker that answers nothing for so long is killed, and restarted.
    silence_s: Seconds = 20.0
    # Shared memory of all lanes' arenas together; for one more an idle lane is closed, and if all are busy that one is
    # refused with 503.
    arena_limit_bytes: Positive = 4294967296


class ControlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[control]`: what both control sockets have in common."""

    # Users, by name or number, who may use them, beside root and the service's own, if the mode of the socket's file
    # (0660) lets them in. With neither users nor groups, that mode alone decides.
    users: Texts = ()
    # Groups whose members may use them. The sockets' files belong to the first of them, so that its members can.
    groups: Texts = ()
    # Most tickets at once, whoever installed them, those that expired a short time ago included; one more is refused.
    tickets_most: Annotated[int, Meta(ge=1, le=1000000)] = 10000
    # How long DELETE of a ticket waits for its requests to end; then it is answered 409, and may be asked again.
    cancel_s: Seconds = 60.0


class LibrarySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[library]`: the image library, spoken to as OpenStack's Glance is, under /v1 and /v2, or as VISOR is."""

    # Whether there is one.
    enabled: bool = True
    # Where its catalogue is: postgresql+psycopg://USER@HOST/NAME where several hosts share one library; empty is
    # library.sqlite in the state directory.
    database: str = ""
    # Most connections of one front end to the catalogue; each is a thread that waits for it. PostgreSQL's
    # max_connections must have room for those of all front ends of all hosts.
    database_connections: Annotated[int, Meta(ge=1, le=100)] = 8
    # How long a question to the catalogue may take; then the client gets 503.
    database_timeout_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    # After how long without a sign of life another host that shares the catalogue counts as dead: what it was
    # receiving may then be sent again, and never comes to anything. Signs of life are six times as frequent.
    host_dead_s: Annotated[float, Meta(ge=1, le=86400)] = 60.0
    # The file of tokens that `mover token` writes; empty is tokens.json in the state directory. While there is none,
    # only clients on this host are answered, each of them as an admin of the tenant `default_tenant`.
    token_file: str = ""
    # The tenant of clients that are answered without a token table.
    default_tenant: Annotated[str, Meta(min_length=1, max_length=255)] = "default"
    # With a token table: whether clients without a token may read public images.
    anonymous: bool = False
    # The path under which VISOR's API is: /visor/images, /visor/all, /visor/status. Empty serves none.
    visor_prefix: str = "/visor"
    # The file of VISOR's users, {"users": [{"access_key": …, "secret_key": …, "email": …}]}, mode 0600; empty is
    # visor-users.json in the state directory. While there is one, requests to VISOR's API must be signed; without it,
    # whoever may ask the other APIs may ask this one.
    visor_users_file: str = ""
    # How far the Date of a signed request may be from this host's time; 0 does not look at it, as VISOR does not.
    visor_window_s: Annotated[float, Meta(ge=0, le=31536000)] = 900.0
    # Largest image, in bytes: Glance's image_size_cap.
    image_size_limit_bytes: Positive = 1099511627776
    # Images in one page of a list when the client does not say.
    page: Annotated[int, Meta(ge=1, le=1000)] = 25
    # Most properties of one image.
    properties: Annotated[int, Meta(ge=0, le=10000)] = 128
    # A head of a request to the library, in bytes; others have 8 KiB. Glance's v1 has all properties there, so this is
    # what an image may have of them by v1.
    head_bytes: Annotated[int, Meta(ge=8192, le=1048576)] = 65536
    # Most tags of one image.
    tags: Annotated[int, Meta(ge=0, le=10000)] = 128
    # Most members of one image.
    members: Annotated[int, Meta(ge=0, le=10000)] = 128
    # A deleted image's bytes stay, its state pending_delete, until it has been deleted for so long; 0 removes them at
    # once.
    scrub_s: Annotated[float, Meta(ge=0, le=31536000)] = 0.0
    # The second checksum of each image beside its MD5, Glance's os_hash_algo.
    hash_algo: Literal["sha512", "sha256", "blake2b"] = "sha512"
    # How long an interrupted upload is kept for its client to go on with; 0 keeps none.
    keep_s: Annotated[float, Meta(ge=0, le=31536000)] = 86400.0
    # Jobs that run on this host at a time: imports, exports, copies. Each keeps a lane or two and their slots busy.
    jobs: Annotated[int, Meta(ge=1, le=64)] = 2
    # How often a job is tried without a byte moved before it is given up; the pauses between grow from 1 to 60 s.
    job_tries: Annotated[int, Meta(ge=1, le=1000)] = 8
    # Whether images may name other files (a backing file, or one with their data) that whoever uses them then opens.
    backing_files: bool = False
    # Ports that URLs of images may name, http and https alike. Empty reads no URL at all.
    url_ports: Ports = (80, 443)
    # What URLs of images may lead to beside the public internet: hosts by name, whatever their addresses, and addresses
    # and networks like 10.0.0.0/8. Whoever may make images can read what is there.
    url_allow: Texts = ()
    # Authorities that sign the certificates of https servers, PEM; empty are the system's own.
    url_ca_file: str = ""


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `[[image]]`, or one `--image ID=URL`: an export served under an id, without expiry."""

    # One segment of the URL's path: at most 255 bytes, without "/", "\" and NUL, not "." or "..".
    id: str
    # The export: nbd+unix:///NAME?socket=/PATH, nbd://HOST:PORT/NAME, nbd:unix:/PATH:exportname=NAME, ...
    url: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it; the TOML file's tables."""

    serve: ServeSettings = ServeSettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    front: FrontSettings = FrontSettings()
    limits: LimitSettings = LimitSettings()
    qos: QosSettings = QosSettings()
    allow: AllowSettings = AllowSettings()
    worker: WorkerSettings = WorkerSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    control: ControlSettings = ControlSettings()
    library: LibrarySettings = LibrarySettings()
    image: list[Image] = []
    # The first one is the default.
    store: list[Store] = []
