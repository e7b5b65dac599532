# shellcheck shell=sh
# Sourced by the others: finds PostgreSQL's programs, and speaks to the server of this pod as its superuser.
# Debian keeps the programs out of the PATH and puts wrappers there; the official image has them in the PATH.
newest=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -z "$newest" ] || PATH=$newest:$PATH

say() { echo "$*" >&2; }

superuser() {
  psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --host=/tmp --username=postgres --dbname=postgres "$@"
}
