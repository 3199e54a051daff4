"""The settings of stores: one struct for each kind of `[[store]]` (config/settings.py has the others)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

StoreId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")]
Prefix = Annotated[str, Meta(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*/)*\Z", max_length=256)]
Endpoint = Annotated[str, Meta(pattern=r"^https?://[A-Za-z0-9.:\[\]_-]+\Z")]


class FileStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="file"):
    """One entry of `[[store]]` with `type = "file"`: directories of library images, a file each, named by its id."""

    # The name under which clients know the store, and the registry remembers it: letters, digits, "_", "-" and ".".
    id: StoreId
    # Each "PATH", or "PATH:PRIORITY" with a whole number: an image goes to the highest priority that has room for it,
    # and among equals to the directory with the most free space.
    directories: Annotated[list[str], Meta(min_length=1)]
    # Mode of the files in octal, "0" leaves it to the umask. A directory gets the execute bits that readers need.
    file_mode: Annotated[str, Meta(pattern=r"^[0-7]{1,4}\Z")] = "0640"
    # A JSON file, {"id": …, "mountpoint": …} or a list of such: the one whose mountpoint an image lies under stands in
    # its location; none if empty.
    metadata_file: str = ""
    # Zeros become holes.
    thin: bool = True
    # The unit in which zeros are looked for; at the edges of data it is 4 KiB.
    chunk_bytes: Annotated[int, Meta(ge=4096, le=4194304, multiple_of=4096)] = 65536
    # For clients that list the stores.
    description: str = ""
    # No image is added, none removed.
    read_only: bool = False


class S3Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="s3"):
    """One entry of `[[store]]` with `type = "s3"`: a bucket of a server that speaks S3, an object for each image."""

    # The name under which clients know the store, and the registry remembers it: letters, digits, "_", "-" and ".".
    id: StoreId
    # The server: http://HOST:PORT or https://HOST. Its bucket is asked for by path, not by a host name of its own.
    endpoint: Endpoint
    # It must be there already.
    bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")]
    # What signatures name; servers that have no regions accept any, or this one.
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")] = "us-east-1"
    # Names of objects begin with it: empty, or "images/" and the like, so that others may use the bucket, too.
    prefix: Prefix = ""
    # A file as of the AWS tools: the lines aws_access_key_id = … and aws_secret_access_key = … below [default]. If
    # empty, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment are used.
    credentials_file: str = ""
    # An image is sent in parts of this size; of a very large one they are larger, since S3 takes 10 000 at most.
    part_bytes: Annotated[int, Meta(ge=5242880, le=1073741824)] = 8388608
    # For clients that list the stores.
    description: str = ""
    # No image is added, none removed.
    read_only: bool = False


class SwiftStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="swift"):
    """One entry of `[[store]]` with `type = "swift"`: a container of OpenStack Swift, spoken to in its own API."""

    # The name under which clients know the store, and the registry remembers it: letters, digits, "_", "-" and ".".
    id: StoreId
    # Who gives tokens: Keystone (https://HOST:5000/v3), or Swift's own auth (http://HOST:8080/auth/v1.0).
    auth_url: Annotated[str, Meta(pattern=r"^https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~-]+)*/?\Z")]
    # It must be there already.
    container: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}\Z")]
    # What is asked at auth_url: Keystone's API, or the one of swauth and tempauth.
    auth: Literal["keystone", "v1"] = "keystone"
    # Of Keystone's catalogue; the only one there is, if empty.
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")] = ""
    # Names of objects begin with it: empty, or "images/" and the like, so that others may use the container, too.
    prefix: Prefix = ""
    # Lines like `username = …` below [default]; if empty, the environment is used. Keystone: username, password,
    # project_name, user_domain_name, project_domain_name (OS_USERNAME, …); v1: user, key (ST_USER, ST_KEY).
    credentials_file: str = ""
    # An image is sent in segments of this size, and is one object of them.
    part_bytes: Annotated[int, Meta(ge=1048576, le=1073741824)] = 16777216
    # For clients that list the stores.
    description: str = ""
    # No image is added, none removed.
    read_only: bool = False


class WebhdfsStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="webhdfs"):
    """One entry of `[[store]]` with `type = "webhdfs"`: a directory of HDFS, by way of its HTTP API."""

    # The name under which clients know the store, and the registry remembers it: letters, digits, "_", "-" and ".".
    id: StoreId
    # The name node: http://HOST:9870.
    endpoint: Endpoint
    # A file for each image lies in it; it is made when it is not there.
    directory: Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+\Z", max_length=256)]
    # Lines below [default]: `user = …`, and `delegation = …` where the cluster asks for a token. If empty, the user
    # is HADOOP_USER_NAME of the environment, if that is set.
    credentials_file: str = ""
    # An image is appended to in pieces of this size.
    part_bytes: Annotated[int, Meta(ge=1048576, le=1073741824)] = 8388608
    # For clients that list the stores.
    description: str = ""
    # No image is added, none removed.
    read_only: bool = False

    @property
    def prefix(self) -> str:
        """Of names in the directory."""
        return ""


class HttpStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="http"):
    """One entry of `[[store]]` with `type = "http"`: images that stay where a URL says. One is there in any case.

    What URLs may name `library.url_ports` and `library.url_allow` say.
    """

    # The name under which clients know the store, and the registry remembers it: letters, digits, "_", "-" and ".".
    id: StoreId
    # For clients that list the stores.
    description: str = ""

    @property
    def read_only(self) -> bool:
        """Nothing is ever added or removed."""
        return True


# Those that keep an object for each image, on a server.
ObjectStore = S3Store | SwiftStore | WebhdfsStore
# One entry of `[[store]]`.
Store = FileStore | ObjectStore | HttpStore
