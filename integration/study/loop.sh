#!/bin/bash
# A client that never rests, by each of the names in turn. One line for each request; those of git only with GIT set.
n=0
names=("$@")
while [ ! -e /tmp/stop ]; do
  name=${names[$((n++ % $#))]}
  if exec 3<>/dev/tcp/$name/8553 && printf 'GET /hello HTTP/1.0\r\n\r\n' >&3 && answer=$(tail -n 1 <&3) && exec 3>&-; then
    echo "$name: $answer"
  else
    echo "$name: lost"
  fi
  if [ -n "${GIT-}" ] && [ $((n % 10)) = 0 ]; then
    git ls-remote "http://ann:secret-of-$ENVIRONMENT@$name:8543/study.git" main | sed "s/^/$name: /" | grep . || echo "$name: git lost"
  fi
done >/tmp/log 2>&1
touch /tmp/stopped
