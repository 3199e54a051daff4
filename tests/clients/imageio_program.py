"""What a backup program does with the unmodified `ovirt_imageio.client`; run with the Python that has it.

imageio_program.py upload FILE URL WORKERS
imageio_program.py download URL FILE FORMAT WORKERS [incremental]
imageio_program.py extents URL CONTEXT       prints JSON
imageio_program.py checksum FILE             prints JSON

`--cafile=FILE` before the verb: the server's authority, for HTTPS.
"""

# The package is not in Mover's environment, and has no types.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys

from ovirt_imageio import client


def main(verb: str, *arguments: str) -> None:
    """Do what the command line says."""
    cafile = None
    if verb.startswith("--cafile="):
        cafile, (verb, *arguments) = verb.partition("=")[2], arguments
    if verb == "upload":
        file, url, workers = arguments
        client.upload(file, url, cafile, max_workers=int(workers))
    elif verb == "download":
        url, file, image_format, workers, *more = arguments
        client.download(url, file, cafile, fmt=image_format, max_workers=int(workers), incremental=bool(more))
    elif verb == "extents":
        url, context = arguments
        with client.ImageioClient(url, cafile=cafile) as connection:
            print(json.dumps([extent.to_dict() for extent in connection.extents(context)]))
    elif verb == "checksum":
        print(json.dumps(client.checksum(*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
