#!/bin/bash
# The server of repositories, by HTTP, for whoever is let through by the one before it.
set -e
repository=/home/git/repositories/study.git
if [ ! -d $repository ]; then
  git init -q --bare -b main $repository
  git --git-dir=$repository config http.receivepack true
  chown -R www-data: /home/git/repositories
fi
mkdir -p /run/apache2
exec apache2 -D FOREGROUND -f /study/gitolite.conf
