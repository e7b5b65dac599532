#!/bin/sh
# Brings roles, databases, passwords and replication slots to what /etc/postgres/access.txt says. Prints a line for each difference.
# usage: access.sh apply | access.sh check      check changes nothing
set -eu
. /etc/postgres/programs.sh
secrets=/run/secrets/sophia
mode=$1

value() { superuser --command="$1"; }

# change WHAT < SQL
change() {
  echo "$1"
  if [ "$mode" = apply ]; then superuser > /dev/null; else cat > /dev/null; fi
}

role() {
  wanted=f,f,f,t,f,$([ "$2" = REPLICATION ] && echo t || echo f)
  has=$(value "SELECT concat_ws(',', rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolbypassrls, rolreplication) FROM pg_roles WHERE rolname = '$1'")
  rights="LOGIN $2 NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS"
  if [ -z "$has" ]; then
    echo "CREATE ROLE \"$1\" $rights;" | change "role $1"
  elif [ "$has" != "$wanted" ]; then
    echo "ALTER ROLE \"$1\" $rights;" | change "rights of role $1"
  fi
}

# Its owner has every right in it, and nobody else may even connect.
database() {
  owner=$(value "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '$1'")
  if [ -z "$owner" ]; then
    echo "CREATE DATABASE \"$1\" OWNER \"$2\";" | change "database $1"
  elif [ "$owner" != "$2" ]; then
    echo "ALTER DATABASE \"$1\" OWNER TO \"$2\";" | change "owner of database $1"
  fi
  closed "$1"
}

closed() {
  open=$(value "SELECT 1 FROM pg_database WHERE datname = '$1' AND (datacl IS NULL OR datacl::text LIKE '%{=%' OR datacl::text LIKE '%,=%')")
  [ -z "$open" ] || echo "REVOKE ALL ON DATABASE \"$1\" FROM PUBLIC;" | change "access of everybody to database $1"
}

# Whether the server lets the role in with the Secret's password, over TCP as its clients come.
admits() {
  if [ "$3" = - ]; then target="replication=true" question=IDENTIFY_SYSTEM; else target="dbname=$3" question="SELECT 1"; fi
  PGPASSWORD=$(cat "$secrets/$2") psql --no-psqlrc --quiet --no-password --dbname="host=127.0.0.1 user=$1 $target" --command="$question" > /dev/null 2>&1
}

# psql reads the password from the file itself, so that no argument holds it; a statement that fails stays out of the log.
password() {
  [ -s "$secrets/$2" ] || { say "the Secret has no $2"; exit 1; }
  admits "$1" "$2" "$3" || change "password of role $1" << SQL
SET log_min_error_statement = panic;
\\set password \`cat $secrets/$2\`
ALTER ROLE "$1" PASSWORD :'password';
SQL
}

# A slot keeps the log that its standby has not read yet; one that nobody reads would only fill the disk.
slots() {
  for slot in $(echo "$1" | tr , ' '); do
    [ -n "$(value "SELECT 1 FROM pg_replication_slots WHERE slot_name = '$slot'")" ] ||
      echo "SELECT pg_create_physical_replication_slot('$slot', true);" | change "replication slot $slot"
  done
  for slot in $(value "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'postgres\\_replicas\\_%' AND NOT active"); do
    case ",$1," in
      *",$slot,"*) ;;
      *) echo "SELECT pg_drop_replication_slot('$slot');" | change "replication slot $slot, which no standby is to read" ;;
    esac
  done
}

while read -r subject first second third; do
  case $subject in
    role) role "$first" "$second" ;;
    database) database "$first" "$second" ;;
    closed) closed "$first" ;;
    password) password "$first" "$second" "$third" ;;
    slots) slots "$first" ;;
    *) say "access.txt: $subject is not known"; exit 1 ;;
  esac < /dev/null
done < /etc/postgres/access.txt
