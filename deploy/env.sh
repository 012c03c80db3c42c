# shellcheck shell=sh
# To be sourced: `. deploy/env.sh` puts semshared, semsharectl and the environment's python on PATH.
# Works in bash and zsh from any folder. A shell that does not tell a sourced file its name
# (dash) finds it from a folder inside the clone, or from SEMSHARE_ROOT.

_semshare_self() {
  if [ -n "${BASH_VERSION:-}" ]; then
    # The array is bash's, which other shells would not parse.
    eval 'printf "%s\n" "${BASH_SOURCE[1]}"'
  elif [ -n "${ZSH_VERSION:-}" ]; then
    eval 'printf "%s\n" "${funcfiletrace[1]%:*}"'
  fi
}

# Prints the clone's folder; fails if it cannot be found.
_semshare_find_root() {
  if [ -n "${1:-}" ]; then
    (cd "$(dirname "$1")/.." && pwd)
    return
  fi
  _semshare_at=${SEMSHARE_ROOT:-$PWD}
  while [ ! -f "$_semshare_at/deploy/env.sh" ]; do
    [ "$_semshare_at" = / ] && return 1
    _semshare_at=$(dirname "$_semshare_at")
  done
  printf '%s\n' "$_semshare_at"
}

# Puts a folder in front of PATH, once.
_semshare_add() {
  case ":$PATH:" in
    *":$1:"*) ;;
    *) PATH="$1:$PATH" ;;
  esac
}

_semshare_main() {
  if ! _semshare_root=$(_semshare_find_root "$1"); then
    echo "semshare: cannot tell where the clone is: cd into it, or set SEMSHARE_ROOT" >&2
    return 1
  fi
  _semshare_missing=
  for _semshare_program in "$_semshare_root/build/release/server/semshared" \
    "$_semshare_root/build/release/client/cpp/semsharectl" \
    "$HOME/.cache/semshare/venv/bin/python"; do
    if [ -x "$_semshare_program" ]; then
      _semshare_add "$(dirname "$_semshare_program")"
    else
      _semshare_missing="$_semshare_missing $(basename "$_semshare_program")"
    fi
  done
  export PATH
  # Model threads that spin for long while they wait would take the broker's core; ones that do not
  # spin at all sleep at each of a prefill's thousands of barriers.
  OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
  GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000}
  export OMP_WAIT_POLICY GOMP_SPINCOUNT
  [ -z "$_semshare_missing" ] && return 0
  echo "semshare: not there yet:$_semshare_missing" >&2
  echo "  $_semshare_root/deploy/quickstart.sh installs and builds them; then source this again" >&2
  return 1
}

_semshare_status=0
_semshare_main "$(_semshare_self)" || _semshare_status=1
unset -f _semshare_self _semshare_find_root _semshare_add _semshare_main
unset _semshare_at _semshare_root _semshare_missing _semshare_program
# Leaves the status behind without leaving the variable.
eval "unset _semshare_status; [ $_semshare_status -eq 0 ]"
