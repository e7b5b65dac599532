#!/bin/sh
# Keeps Redis' password as the Secret says.
# usage: password.sh write | served | check | apply
# write makes the file that the configuration includes, served prints what is in it, apply gives the running server a changed password,
# and check only says that apply would.
set -eu
umask 077
current=/tmp/password.conf
secret=/run/secrets/sophia/redis_password

quoted() { sed 's/["\\]/\\&/g; s/^/"/; s/$/"/' "$secret"; }

write() {
  [ -s "$secret" ] || { echo "the Secret has no redis_password" >&2; exit 1; }
  printf 'requirepass %s\n' "$(quoted)" > "$current.new"
  mv "$current.new" "$current"
}

served() { sed 's/^requirepass "//; s/"$//; s/\\\(["\\]\)/\1/g' "$current"; }

admitted() { [ "$(REDISCLI_AUTH=$(cat "$secret") redis-cli --no-auth-warning PING 2> /dev/null)" = PONG ]; }

# The command is read from standard input, so that no argument holds the password.
apply() {
  answer=$(printf 'CONFIG SET requirepass %s\n' "$(quoted)" | REDISCLI_AUTH=$(served) redis-cli --no-auth-warning)
  [ "$answer" = OK ] || { echo "Redis takes neither the Secret's password nor the one it was started with" >&2; exit 1; }
  write
}

case $1 in
  write) write ;;
  served) served ;;
  check) admitted || echo "password of Redis" ;;
  apply) admitted || { echo "password of Redis"; apply; } ;;
  *) echo "password.sh: $1 is not known" >&2; exit 1 ;;
esac
