"""Ending multipart uploads that were begun and will not be completed, which OpenDAL's binding has no call for.

S3 keeps, and bills, their parts for ever, and no list of objects shows them.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import re
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from config.store_settings import S3Store
from workers.store.objects.asking import Request, ask_again
from workers.store.objects.credentials import Credentials

UPLOAD = re.compile(rb"<Upload>(.*?)</Upload>", re.S)
KEY, UPLOAD_ID = re.compile(rb"<Key>(.*?)</Key>", re.S), re.compile(rb"<UploadId>(.*?)</UploadId>", re.S)


def abort_uploads(store: S3Store, credentials: Credentials, name: str) -> int:
    """End the object's multipart uploads; how many there were. Raises OSError."""
    status, _, answer = ask_again(signed(store, credentials, "GET", "", {"prefix": name, "uploads": ""}))
    if status != http.client.OK:
        raise OSError(0, f"listing unfinished uploads was answered with status {status}")
    found = [(_text(KEY, upload), _text(UPLOAD_ID, upload)) for upload in UPLOAD.findall(answer)]
    ours = [number for key, number in found if key == name]
    for number in ours:
        status, _, _ = ask_again(signed(store, credentials, "DELETE", name, {"uploadId": number}))
        if status not in (http.client.OK, http.client.NO_CONTENT, http.client.NOT_FOUND):
            raise OSError(0, f"ending an unfinished upload was answered with status {status}")
    return len(ours)


def _text(pattern: re.Pattern[bytes], within: bytes) -> str:
    match = pattern.search(within)
    return unescape(match[1].decode()) if match else ""


def signed(store: S3Store, credentials: Credentials, method: str, name: str, query: dict[str, str]) -> Request:
    """A request without a body, with AWS Signature Version 4."""
    host = urlsplit(store.endpoint).netloc
    path = f"/{store.bucket}/{quote(name)}" if name else f"/{store.bucket}"
    text = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted(query.items()))
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256().hexdigest()
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
    lines = "".join(f"{header}:{value}\n" for header, value in headers.items())
    request = "\n".join([method, path, text, lines, ";".join(headers), empty])
    scope = f"{now[:8]}/{store.region}/s3/aws4_request"
    signing = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials['aws_secret_access_key']}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, signing.encode(), "sha256").hex()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials['aws_access_key_id']}/{scope}, "
        f"SignedHeaders={';'.join(headers)}, Signature={signature}"
    )
    return Request(method, f"{store.endpoint}{path}?{text}", {**headers, "Authorization": authorization})
