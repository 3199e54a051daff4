"""What a backup program does with the unmodified `ovirt_imageio.client`; run with the Python that has it.

imageio_program.py upload FILE URL WORKERS
imageio_program.py download URL FILE FORMAT WORKERS [incremental]
imageio_program.py extents URL CONTEXT       prints JSON
imageio_program.py checksum FILE             prints JSON
"""

# The package is not in Mover's environment, and has no types.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys

from ovirt_imageio import client


def main(verb: str, *arguments: str) -> None:
    """Do what the command line says."""
    if verb == "upload":
        file, url, workers = arguments
        client.upload(file, url, None, max_workers=int(workers))
    elif verb == "download":
        url, file, image_format, workers, *more = arguments
        client.download(url, file, None, fmt=image_format, max_workers=int(workers), incremental=bool(more))
    elif verb == "extents":
        url, context = arguments
        with client.ImageioClient(url) as connection:
            print(json.dumps([extent.to_dict() for extent in connection.extents(context)]))
    elif verb == "checksum":
        print(json.dumps(client.checksum(*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
