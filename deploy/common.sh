# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how they talk. Sets no options of the shell.

semshare_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
semshare_cache="${HOME:?HOME must be set}/.cache/semshare"
semshare_venv="$semshare_cache/venv"
# What used them is shellcheck's to see only when it follows the sourcing.
export semshare_root semshare_cache semshare_venv

say() { printf '%s\n' "$*"; }

# A heading that stands out where there is a terminal.
heading() {
  if [[ -t 1 ]]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}

# fail MESSAGE [HINT...]: says what went wrong and what to do, and ends the script.
fail() {
  printf '\nsemshare: %s\n' "$1" >&2
  shift
  if (($# > 0)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}

# run_logged NAME COMMAND...: runs a command with its output in a log, shows that it is alive, and
# shows the end of the log if it fails.
run_logged() {
  local name=$1 log pid status=0 waited=0
  shift
  mkdir -p "$semshare_cache/logs"
  log="$semshare_cache/logs/$name.log"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # A background job of a script ignores Ctrl-C, so it is told.
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    if ((waited % 15 == 0)); then say "  ... $name: ${waited} s, $(last_line "$log")"; fi
  done
  wait "$pid" || status=$?
  trap - INT TERM
  if ((status != 0)); then
    tail -n 25 "$log" >&2
    say "  $name ended with status $status; the whole log is $log" >&2
  fi
  return "$status"
}

last_line() { tail -n 1 "$1" 2>/dev/null | tr -d '\r' | cut -c 1-80; }

# Compilations are remembered wherever the clone lies: paths below it are hashed as relative ones.
use_ccache() {
  export CCACHE_BASEDIR="$semshare_root" CCACHE_NOHASHDIR=true
}
