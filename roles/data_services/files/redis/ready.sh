#!/bin/sh
# Exits 0 while Redis answers, which it does once its file is loaded.
[ "$(REDISCLI_AUTH=$(sh /etc/redis/password.sh served) redis-cli --no-auth-warning PING)" = PONG ]
