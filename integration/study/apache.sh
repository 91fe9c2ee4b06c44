#!/bin/bash
# The door: who wants to write must be known to the directory. Where the others are is what the links say.
set -e
echo "hello from $ENVIRONMENT by $HOSTNAME" >/tmp/hello
exec apache2 -D FOREGROUND -f /study/apache.conf
