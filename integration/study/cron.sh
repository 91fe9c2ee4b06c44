#!/bin/bash
# The backup: when it begins, and as soon as there is something.
set -e
git config --system safe.directory '*'
cat >/etc/cron.d/study <<'E'
SHELL=/bin/bash
@reboot root until git clone -q --mirror /home/git/repositories/study.git /tmp/b && git --git-dir=/tmp/b rev-parse -q --verify main >/backup/head.new; do rm -rf /tmp/b; sleep 0.2; done 2>/dev/null; mv /backup/head.new /backup/head
E
exec cron -f
