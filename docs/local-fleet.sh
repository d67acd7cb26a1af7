#!/usr/bin/env bash
# A fleet on one machine, from nothing: PostgreSQL, Prefect's server, pools and deployments, a worker for each of two
# GPU types that the CPU stands for and one for load and publish; then a run on a schedule and one by hand.
#
#   make setup && docs/local-fleet.sh [FOLDER]
#
# It needs PostgreSQL's programs (Debian: apt install postgresql). All it makes lies in FOLDER (default
# .quantgate/local-fleet) and all it starts ends with it; KEEP=1 leaves the fleet running until Ctrl-C. PostgreSQL refuses
# root: for root it runs as the user postgres, which Debian's package makes.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
folder=$(realpath -m "${1:-.quantgate/local-fleet}")
PATH=$root/.venv/bin:$PATH
for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done
for program in initdb pg_ctl createdb prefect quantgate; do
  command -v $program > /dev/null || {
    echo "local-fleet: $program is missing (PostgreSQL: apt install postgresql; the others: make setup)" >&2
    exit 2
  }
done
database=() login="" auth=peer
if [ "$(id -u)" = 0 ]; then
  id postgres > /dev/null 2>&1 || {
    echo "local-fleet: PostgreSQL refuses root, and there is no user postgres (useradd --system postgres)" >&2
    exit 2
  }
  # Only root and postgres can enter the socket's folder, so whoever connects there is one of them.
  database=(env -C / setpriv --reuid postgres --regid postgres --clear-groups) login=postgres@ auth=trust
  umask 077
fi
mkdir -p "$folder/tmp" "$folder/postgres"
chmod 700 "$folder" "$folder/postgres"
if [ ${#database[@]} != 0 ]; then
  chmod 711 "$folder"
  chown postgres "$folder/postgres"
  "${database[@]}" test -w "$folder/postgres" || {
    echo "local-fleet: PostgreSQL refuses root, and its user postgres can't enter $folder." \
      "Name a folder that it can enter: docs/local-fleet.sh /var/tmp/local-fleet" >&2
    exit 2
  }
fi

port=${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
socket=$(mktemp -d /tmp/local-fleet.XXXXXX) # a socket's path is limited to 107 characters, a folder's is not
[ ${#database[@]} = 0 ] || chown postgres "$socket"
# A profile of the user's own server must not be meant by what follows.
export PREFECT_HOME=$folder/prefect PREFECT_API_URL=http://127.0.0.1:$port/api
export PREFECT_API_DATABASE_CONNECTION_URL="postgresql+asyncpg://$login/prefect?host=$socket"
# Leases in memory are forgotten when the server restarts, and with them who holds a slot.
export PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem
# Prefect's workers write below TMPDIR, in a folder that whoever came first owns.
export TMPDIR=$folder/tmp
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
export QUANTGATE_ROOT=$root QUANTGATE_FLEET=$root/docs/local-fleet.yaml
export QUANTGATE_HOME=$folder/home QUANTGATE_ENGINES=${QUANTGATE_ENGINES:-$root/.quantgate/engines}

started=()
stop() {
  trap - EXIT INT TERM
  for pid in "${started[@]}"; do kill -TERM -- "-$pid" 2> /dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2> /dev/null || true; done
  "${database[@]}" pg_ctl --pgdata "$folder/postgres" --mode fast --silent stop || true
  rm -rf "$socket"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
background() { # LOG COMMAND…: in a process group of its own, so that its children end with it
  local log=$folder/$1.log
  shift
  set -m
  "$@" > "$log" 2>&1 < /dev/null &
  started+=($!)
  set +m
}

echo "== PostgreSQL and Prefect's server ($PREFECT_API_URL)"
[ -f "$folder/postgres/PG_VERSION" ] ||
  "${database[@]}" initdb --pgdata "$folder/postgres" --auth-local $auth --auth-host reject > "$folder/initdb.log"
"${database[@]}" pg_ctl --pgdata "$folder/postgres" --log "$folder/postgres/server.log" --silent --wait \
  --options "-c listen_addresses='' -c unix_socket_directories='$socket'" start
"${database[@]}" createdb --host "$socket" prefect 2> /dev/null || true # it is there from before
background server prefect server start --host 127.0.0.1 --port "$port"
for _ in $(seq 180); do
  curl --silent --fail --output /dev/null "$PREFECT_API_URL/health" && break
  kill -0 "${started[0]}" 2> /dev/null || { tail -20 "$folder/server.log" >&2; exit 1; }
  sleep 1
done

echo "== quantgate fleet init"
quantgate fleet init

echo "== workers"
background worker-cpu prefect worker start --type process --pool cpu --name local
background worker-h100 prefect worker start --type process --pool h100 --limit 1 --name local-h100
background worker-l40s prefect worker start --type process --pool l40s --limit 1 --name local-l40s

for pool in cpu h100 l40s; do
  for _ in $(seq 60); do
    grep --quiet started "$folder/worker-$pool.log" && break
    sleep 1
  done
done

echo "== one run on a schedule, in some seconds, on pool l40s"
scheduled=$(python docs/schedule_once.py validate/l40s '{"model": "quantgate-demo", "precisions": ["fp8"], "limit": 20, "concurrency": [2]}')

echo "== one run by hand, on pool h100"
quantgate validate quantgate-demo --precision fp8 --limit 20 --concurrency 4 --gpu h100 --watch

echo "== the scheduled one"
quantgate fleet watch "$scheduled"

echo "== rows"
quantgate sql "SELECT checkpoint, precision, gpu, workload, concurrency, verdict, run_id FROM validated_table WHERE use = 'all' ORDER BY measured_at"
[ -z "${KEEP:-}" ] || { echo "== $PREFECT_API_URL goes on; Ctrl-C ends it"; wait; }
