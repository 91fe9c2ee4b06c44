#!/bin/bash
# Who stands between a client and a server that the client does not know; $BEHIND is the server's name, once there is one.
set -e
until getent hosts "$BEHIND"; do sleep 0.05; done
exec apache2 -D FOREGROUND -f /study/ambassador.conf
