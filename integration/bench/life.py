"""The groups of `bench` about a container's life: life, ps, logs, output, fifty. Each takes the Bench."""

import os
import re
import subprocess
import time

LINES = 1_000_000
GIGABYTE = 1_000_000_000


def life(bench):
    """create, start, stop and rm, one after the other."""
    for person in bench.people:
        # KILL, so that no time goes by while a program thinks about its end.
        words = ("{0} create --name bench --network none --stop-signal KILL busybox sleep 10000 && {0} start bench && "
                 "{0} stop bench && {0} rm bench")
        values = bench.millis(person, "create, start, stop, rm", bench.engines(person, words), runs=10, shell=True)
        bench.table.add(f"create + start + stop + rm, {person.name}", values, "ms", [("docker", 1 / 10), ("podman", 1 / 10)])


def ps(bench):
    """The list of a hundred that run."""
    person = bench.people[0]
    engines = bench.engines(person, "{}")
    usable = {}
    for name, words in engines.items():
        start = [*words.split(), "run", "-d", "--network", "none", "busybox", "sleep", "10000"]
        if bench.attempt(f"a hundred of {name}", lambda start=start: [person.call(*start) for _ in range(100)]) is not None:
            usable[name] = f"{words} ps"
    values = bench.millis(person, "ps", usable, warmup=3)
    bench.table.add("ps, of 100 that run", values, "ms")
    bench.verdict("ps, of 100 that run", values.get("dhow"), 20, "ms")
    for name in usable:
        remove_all(bench, person, engines[name])


def remove_all(bench, person, words):
    ids = person.call(*words.split(), "ps", "-aq").split()
    if ids:
        more = ["-t", "0"] if words.startswith("podman") else []
        bench.attempt("rm", person.call, *words.split(), "rm", "-f", *more, *ids)


def logs(bench):
    """A million lines, kept whole by all three."""
    person = bench.people[0]
    options = {"dhow": "--log-opt max-size=1g", "docker": "", "podman": "--log-driver k8s-file"}
    usable = {}
    for name, words in bench.engines(person, "{}").items():
        run = [*words.split(), "run", "--name", "lines", "--network", "none", *options[name].split(), "busybox", "seq", str(LINES)]
        if bench.attempt(f"{name} run", call_quiet, person, run) is None:
            continue
        shown = subprocess.run(person.prefix + [*words.split(), "logs", "lines"], env={**os.environ, **person.env},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
        if shown.count(b"\n") != LINES:
            raise RuntimeError(f"{name} logs: {shown.count(bytes([10]))} lines")
        usable[name] = f"{words} logs lines | cat >/dev/null"
    values = bench.millis(person, "logs", usable, runs=5, warmup=1, shell=True)
    bench.table.add("logs, of 1,000,000 lines", values, "ms", [("docker", 1)])
    for words in bench.engines(person, "{}").values():
        remove_all(bench, person, words)


def call_quiet(person, words):
    done = subprocess.run(person.prefix + words, env={**os.environ, **person.env}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return True


def output(bench):
    """A gigabyte out of a container and through a pipe."""
    big = f"{bench.work}/gigabyte"
    with open(big, "wb") as file:
        piece = os.urandom(1 << 20)
        for _ in range(GIGABYTE // len(piece)):
            file.write(piece)
    os.chmod(big, 0o644)
    for person in bench.people:
        command = f"{{}} run --rm --network none -v {big}:/big:ro busybox cat /big | cat >/dev/null"
        commands = {"bare": f"{bench.rootfs}/bin/busybox cat {big} | cat >/dev/null", **bench.engines(person, command)}
        values = bench.millis(person, "output of a gigabyte", commands, runs=5, warmup=1, shell=True)
        bench.table.add(f"1 GB through a pipe, {person.name}", values, "ms", [("bare", 1.5)])
    os.unlink(big)


def fifty(bench):
    """Fifty that do nothing: what they weigh, and whether they wake up within a minute."""
    person = bench.people[0]
    engines = bench.engines(person, "{}")
    memory, seconds, wakes = {}, {}, {}
    tells = {
        "dhow": lambda c, e, p: c.startswith("dhow supervise") and person.dir in c,
        "docker": lambda c, e, p: bench.docker and ("containerd-shim" in e or bench.docker.dir in c),
        "podman": lambda c, e, p: e.endswith("/conmon") and person.dir in c,
    }
    for name, words in engines.items():
        start = [*words.split(), "run", "-d", "--network", "none", "busybox", "sleep", "10000"]
        if bench.attempt(f"fifty of {name}", lambda start=start: [person.call(*start) for _ in range(50)]) is None:
            continue
        time.sleep(2)  # What starting leaves to be done is done.
        pids = bench.processes(tells[name])
        memory[name] = bench.private_kib(pids) / 1024
        before = [spent(pid) for pid in pids]
        time.sleep(60)
        after = [spent(pid) for pid in pids]
        ticks = os.sysconf("SC_CLK_TCK")
        seconds[name] = sum(a[0] - b[0] for a, b in zip(after, before)) / ticks * 1000
        wakes[name] = sum(a[1] - b[1] for a, b in zip(after, before))
        remove_all(bench, person, words)
    bench.table.add("50 idle, private memory of what keeps them", memory, "MiB")
    bench.table.add("50 idle, CPU time in a minute", seconds, "ms")
    bench.table.add("50 idle, wake-ups in a minute", wakes, "")
    bench.verdict("50 idle, wake-ups in a minute", wakes.get("dhow"), 0, "")


def spent(pid):
    """Clock ticks of CPU, and how often it went to sleep of itself, in all threads."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    switches = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/status") as file:
                switches += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M).group(1))
        except OSError:
            pass
    return int(fields[11]) + int(fields[12]), switches


GROUPS = {"life": life, "ps": ps, "logs": logs, "output": output, "fifty": fifty}
