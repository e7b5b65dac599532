#!/bin/sh
# Runs Redis with the Secret's password, which stands in no argument and no environment.
set -eu
umask 077
sh /etc/redis/password.sh write
exec redis-server /etc/redis/redis.conf
