"""Ending multipart uploads that were begun and will not be completed, which OpenDAL's binding has no call for.

S3 keeps, and bills, their parts for ever, and no list of objects shows them.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import re
import time
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from config.settings import S3Store
from workers.store.s3_credentials import Credentials

TIMEOUT_S = 15.0
PAUSES_S = (0.1, 0.3, 1.0)
ANSWER_BYTES = 16 * 1024 * 1024
UPLOAD = re.compile(rb"<Upload>(.*?)</Upload>", re.S)
KEY, UPLOAD_ID = re.compile(rb"<Key>(.*?)</Key>", re.S), re.compile(rb"<UploadId>(.*?)</UploadId>", re.S)


def abort_uploads(store: S3Store, credentials: Credentials, name: str) -> int:
    """End the object's multipart uploads; how many there were. Raises OSError."""
    status, answer = _ask_again(store, credentials, "GET", "", {"prefix": name, "uploads": ""})
    if status != http.client.OK:
        raise OSError(0, f"listing unfinished uploads was answered with status {status}")
    found = [(_text(KEY, upload), _text(UPLOAD_ID, upload)) for upload in UPLOAD.findall(answer)]
    ours = [number for key, number in found if key == name]
    for number in ours:
        status, _ = _ask_again(store, credentials, "DELETE", name, {"uploadId": number})
        if status not in (http.client.OK, http.client.NO_CONTENT, http.client.NOT_FOUND):
            raise OSError(0, f"ending an unfinished upload was answered with status {status}")
    return len(ours)


def _ask_again(
    store: S3Store, credentials: Credentials, method: str, name: str, query: dict[str, str]
) -> tuple[int, bytes]:
    """As `ask`, tried again while the server says that it is for a moment."""
    for pause_s in PAUSES_S:
        try:
            answered = ask(store, credentials, method, name, query)
            if answered[0] < http.client.INTERNAL_SERVER_ERROR:
                return answered
        except OSError:
            pass
        time.sleep(pause_s)
    return ask(store, credentials, method, name, query)


def _text(pattern: re.Pattern[bytes], within: bytes) -> str:
    match = pattern.search(within)
    return unescape(match[1].decode()) if match else ""


def ask(store: S3Store, credentials: Credentials, method: str, name: str, query: dict[str, str]) -> tuple[int, bytes]:
    """A signed request without a body: status and answer. Raises OSError."""
    address = urlsplit(store.endpoint)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=TIMEOUT_S)
    path = f"/{store.bucket}/{quote(name)}" if name else f"/{store.bucket}"
    text = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted(query.items()))
    try:
        headers = _signed(store, credentials, method, address.netloc, path, text)
        connection.request(method, f"{path}?{text}", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES)
    except http.client.HTTPException as error:
        raise OSError(0, f"the server does not speak HTTP: {type(error).__name__}") from None
    finally:
        connection.close()


def _signed(store: S3Store, credentials: Credentials, method: str, host: str, path: str, query: str) -> dict[str, str]:
    """AWS Signature Version 4 of a request without a body."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256().hexdigest()
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join([method, path, query, lines, ";".join(headers), empty])
    scope = f"{now[:8]}/{store.region}/s3/aws4_request"
    signing = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, signing.encode(), "sha256").hex()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, "
        f"SignedHeaders={';'.join(headers)}, Signature={signature}"
    )
    return {**headers, "Authorization": authorization}
