#!/usr/bin/env python3
"""Usage: bare_pull.py ADDRESS REPOSITORY TAG DIRECTORY

The least that a pull has to do: fetches every layer, gunzips and unpacks it, a layer per processor, each into a directory of
its own. Verifies nothing, keeps no record, syncs nothing."""

import concurrent.futures
import http.client
import json
import os
import subprocess
import sys

address, repository, tag, directory = sys.argv[1:]


def get(path):
    connection = http.client.HTTPConnection(address)
    connection.request("GET", f"/v2/{repository}/{path}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    return connection.getresponse()


def layer(n, digest):
    to = f"{directory}/{n}"
    os.mkdir(to)
    # The kernel's pipes do the rest: as many programs as there are steps.
    gunzip = subprocess.Popen(["gzip", "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tar = subprocess.Popen(["tar", "-x", "-C", to, "--exclude=dev/*"], stdin=gunzip.stdout)
    gunzip.stdout.close()
    response = get(f"blobs/{digest}")
    while piece := response.read(1 << 20):
        gunzip.stdin.write(piece)
    gunzip.stdin.close()
    if gunzip.wait() != 0 or tar.wait() != 0:
        raise RuntimeError(f"layer {n} does not unpack")


manifest = json.loads(get(f"manifests/{tag}").read())
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    for done in [threads.submit(layer, n, entry["digest"]) for n, entry in enumerate(manifest["layers"])]:
        done.result()
