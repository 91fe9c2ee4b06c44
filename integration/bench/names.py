"""The group of `bench` about names: how many local answers the resolver of a network gives in a second, with one core for all
of it, and how long one takes."""

import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
COUNT = 200_000


def names(bench):
    """One container asks for another. dhow's resolver has one thread, and so one core; docker's has as many as there are."""
    program = f"{bench.work}/bin/ask"
    bench.call("cc", "-O2", "-static", "-o", program, f"{HERE}/ask.c")
    person = bench.people[0]
    rates, times = {}, {}
    for name, words in bench.engines(person, "{}").items():
        words = words.split()
        measured = bench.attempt(f"names of {name}", measure, bench, person, words, program)
        if measured:
            rates[name], times[name] = measured
        for ours in ("asked", "asker"):
            subprocess.run([*person.prefix, *words, "rm", "-f", ours], stdin=subprocess.DEVNULL, capture_output=True,
                           env={**os.environ, **person.env}, check=False)
        subprocess.run([*person.prefix, *words, "network", "rm", "named"], stdin=subprocess.DEVNULL, capture_output=True,
                       env={**os.environ, **person.env}, check=False)
    bench.table.add("local answers in a second, one core", rates, "")
    bench.floor("local answers in a second, one core", rates.get("dhow"), 50_000)
    bench.table.add("one local answer", times, "us")
    bench.verdict("one local answer", times.get("dhow"), 1000, "us")


def measure(bench, person, words, program):
    person.call(*words, "network", "create", "named")
    person.call(*words, "run", "-d", "--name", "asked", "--network", "named", "busybox", "sleep", "10000")
    person.call(*words, "run", "-d", "--name", "asker", "--network", "named", "-v", f"{program}:/ask", "busybox", "sleep", "10000")
    server = person.call(*words, "exec", "asker", "sed", "-n", "s/^nameserver //p", "/etc/resolv.conf").split()[0]
    many = person.call(*words, "exec", "asker", "/ask", server, "asked", str(COUNT), "32")
    single = person.call(*words, "exec", "asker", "/ask", server, "asked", "20000", "1")
    return float(many.split()[0]), float(single.split()[1])


GROUPS = {"names": names}
