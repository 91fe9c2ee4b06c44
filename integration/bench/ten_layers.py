#!/usr/bin/env python3
"""Usage: ten_layers.py ROOT.tar DIRECTORY

Makes an OCI layout out of a Debian root file system: the packages in it, dealt out to ten layers of about one size, as an
image of ten `apt-get install` would have them. Tag `v1` is that image, `v2` the same with another last layer, whose size is
in the file `changed-layer-bytes`."""

import concurrent.futures
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile

source, layout = sys.argv[1:]
N_LAYERS = 10


def plain(name):
    return name.removeprefix("./").rstrip("/")


def packages(archive):
    """Path to package, out of dpkg's own lists."""
    owners = {}
    for member in archive:
        name = plain(member.name)
        if name.startswith("var/lib/dpkg/info/") and name.endswith(".list"):
            for path in archive.extractfile(member).read().decode().splitlines():
                owners[path.lstrip("/")] = os.path.basename(name)
                # Where /lib is a link to /usr/lib, a package's list may have either.
                owners[f"usr{path}"] = os.path.basename(name)
    return owners


def deal(archive, owners):
    """Package to layer. What no package owns, and every directory, is in the first."""
    sizes = {}
    for member in archive:
        package = owners.get(plain(member.name))
        if package and not member.isdir():
            sizes[package] = sizes.get(package, 0) + member.size
    loads, dealt = [0] * N_LAYERS, {}
    for package in sorted(sizes, key=sizes.get, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[package]
        dealt[package] = lightest
    return dealt


def write_tars(archive, owners, dealt):
    tars = [tarfile.open(f"{layout}/{n}.tar", "w", format=tarfile.PAX_FORMAT) for n in range(N_LAYERS)]
    for member in archive:
        if member.isdev():
            continue
        n = 0 if member.isdir() else dealt.get(owners.get(plain(member.linkname if member.islnk() else member.name)), 0)
        tars[n].addfile(member, archive.extractfile(member) if member.isreg() else None)
    for tar in tars:
        tar.close()


def put(bytes_or_path):
    """A blob: its digest and size."""
    if isinstance(bytes_or_path, bytes):
        path = f"{layout}/blob"
        with open(path, "wb") as file:
            file.write(bytes_or_path)
    else:
        path = bytes_or_path
    digest, size = sha256(path), os.path.getsize(path)
    os.rename(path, f"{layout}/blobs/sha256/{digest}")
    return {"digest": f"sha256:{digest}", "size": size}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(file.read()).hexdigest()


def pack(path):
    """A layer's descriptor and diff_id."""
    diff_id = f"sha256:{sha256(path)}"
    subprocess.run(["gzip", "-n", path], check=True)
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(f"{path}.gz")}, diff_id


def image(layers, tag):
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["bash"]},
              "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer for layer, _ in layers]}
    return {"mediaType": media_type, **put(json.dumps(manifest).encode()),
            "annotations": {"org.opencontainers.image.ref.name": tag}}


def main():
    os.makedirs(f"{layout}/blobs/sha256")
    with tarfile.open(source) as archive:
        owners = packages(archive)
        write_tars(archive, owners, deal(archive, owners))
    changed = f"{layout}/changed.tar"
    subprocess.run(["cp", f"{layout}/{N_LAYERS - 1}.tar", changed], check=True)
    with tarfile.open(changed, "a") as tar:
        entry = tarfile.TarInfo("changed")
        entry.size = 8
        tar.addfile(entry, io.BytesIO(b"changed\n"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        paths = [f"{layout}/{n}.tar" for n in range(N_LAYERS)] + [changed]
        *layers, last = threads.map(pack, paths)
    index = {"schemaVersion": 2, "manifests": [image(layers, "v1"), image([*layers[:-1], last], "v2")]}
    for name, value in [("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})]:
        with open(f"{layout}/{name}", "w") as file:
            json.dump(value, file)
    with open(f"{layout}/changed-layer-bytes", "w") as file:
        file.write(str(last[0]["size"]))


main()
