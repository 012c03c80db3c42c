#!/usr/bin/env bash
# Installs what semshare needs on Debian 12, and only what is missing; run it as often as you like.
#
#   deploy/setup.sh [PART...]      default: build python
#
#   build    Debian packages to compile semshare and to run Python (packages-build.txt)
#   check    Debian packages that tests/run.sh needs besides (packages-check.txt)
#   runtime  Debian packages to run a built semshared (packages-runtime.txt)
#   python   a virtual environment in ~/.cache/semshare/venv with the versions of requirements.txt,
#            the Python code generated from proto/, and the package `semshare` on its path
#   report   the texts of docs/fidelity.md: Debian packages (packages-report.txt), and sources from
#            PyPI (report-sources.txt) in ~/.cache/semshare/corpus
#
# Packages need root: run it as root, or have sudo.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly deploy="$semshare_root/deploy"
readonly uv_version=0.13.9
readonly uv_venv="$semshare_cache/uv"
readonly uv="$uv_venv/bin/uv"
readonly stamp="$semshare_venv/semshare.stamp"
readonly venv_gib=6

usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# The entries of a list file, without comments.
read_list() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$1"; }

missing_packages() {
  local package
  while read -r package; do
    if ! dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
      printf '%s\n' "$package"
    fi
  done
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

# sudo asks for its password here, in the foreground, not behind a log.
require_root() {
  if [[ $(id -u) -eq 0 ]]; then return; fi
  if ! command -v sudo >/dev/null || ! sudo -v; then
    fail "these packages are missing and installing them needs root: $*" \
      "Install them as root: apt-get install --no-install-recommends $*" \
      "then run this again."
  fi
}

apt_update() { as_root apt-get -o Acquire::Retries=3 update; }

apt_install() {
  as_root apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
    install -y -q --no-install-recommends "$@"
}

# install_packages LIST_FILE
install_packages() {
  local list=$1 missing
  if ! command -v apt-get >/dev/null; then
    fail "this is not Debian: apt-get is missing" \
      "Install the equivalents of the packages in $list by hand; deploy/Dockerfile runs anywhere."
  fi
  mapfile -t missing < <(read_list "$list" | missing_packages)
  if ((${#missing[@]} == 0)); then
    say "Debian packages of $(basename "$list"): all installed"
    return
  fi
  heading "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  require_root "${missing[@]}"
  run_logged apt-update apt_update ||
    say "  apt-get update failed; going on with the package lists that are there"
  run_logged apt-install apt_install "${missing[@]}" ||
    fail "apt-get could not install the packages" \
      "Is the network up, and is this Debian 12 with its main archive enabled?" \
      "The error is above; this can be run again."
}

# The system's Python: the virtual environment must not hang on a pyenv that may go away.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [[ -x $candidate ]] &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
        2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or later with the venv module" "Install python3 and python3-venv."
}

has_gpu() { [[ -e /dev/nvidia0 ]] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; }

requirement_files() {
  printf '%s\n' "$deploy/requirements.txt"
  if has_gpu; then printf '%s\n' "$deploy/requirements-gpu.txt"; fi
}

# What the environment was made from. It is written last, so a partial environment has none.
fingerprint() {
  local files
  mapfile -t files < <(requirement_files)
  { "$1" -VV; uname -m; say "uv $uv_version"; cat "${files[@]}"; } | sha256sum | cut -d ' ' -f 1
}

is_current() {
  [[ -f $stamp && -x $semshare_venv/bin/python && $(cat "$stamp") == "$1" ]] &&
    "$semshare_venv/bin/python" -c '' 2>/dev/null
}

require_space() {
  local free_gib
  free_gib=$(df --output=avail -B1G "$semshare_cache" | tail -n 1 | tr -d ' ')
  if ((free_gib < venv_gib)); then
    fail "$semshare_cache has $free_gib GiB free; PyTorch and its libraries take $venv_gib GiB" \
      "Free some space, or set HOME to a folder on another disk."
  fi
}

bootstrap_uv() {
  local python=$1
  if [[ "$("$uv" --version 2>/dev/null)" == "uv $uv_version"* ]]; then return; fi
  heading "Installing uv $uv_version, which installs Python packages"
  rm -rf "$uv_venv"
  run_logged uv-venv "$python" -m venv "$uv_venv" || fail "$uv_venv could not be made"
  run_logged uv-install "$uv_venv/bin/pip" install --disable-pip-version-check --retries 5 \
    "uv==$uv_version" ||
    fail "uv could not be installed from PyPI" "Is the network up? This can be run again."
}

install_requirements() {
  local file arguments=()
  while read -r file; do arguments+=(-r "$file"); done < <(requirement_files)
  # The list is complete, and names on purpose less than its packages declare. The system's
  # certificates are used so that a proxy that the machine trusts is trusted here too.
  UV_HTTP_TIMEOUT=300 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 VIRTUAL_ENV="$semshare_venv" \
    "$uv" pip install --no-deps "${arguments[@]}" </dev/null
}

make_venv() {
  local python=$1 wanted=$2
  if [[ -d $semshare_venv ]]; then say "$semshare_venv is stale or partial: making it anew"; fi
  require_space
  heading "Installing Python packages in $semshare_venv (2.5 GB to download the first time)"
  rm -rf "$semshare_venv"
  "$uv" venv --quiet --no-project --python "$python" "$semshare_venv"
  install_requirements ||
    fail "the Python packages could not be installed" \
      "What failed is above; downloads that were finished are kept, and this can be run again."
  "$semshare_venv/bin/python" -c 'import grpc, torch, transformers' ||
    fail "the Python packages are installed and cannot be imported; the reason is above"
  printf '%s\n' "$wanted" >"$stamp"
}

generate_code() {
  local protos=("$semshare_root"/proto/semshare/v1/*.proto) out="$semshare_root/client/python"
  "$semshare_venv/bin/python" -m grpc_tools.protoc -I "$semshare_root/proto" \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" "${protos[@]}" ||
    fail "the Python code of proto/ could not be generated"
}

# The clone that was set up last is the one that `import semshare` finds.
put_package_on_path() {
  local site
  site=$("$semshare_venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' "$semshare_root/client/python" >"$site/semshare.pth"
}

setup_python() {
  local python wanted
  python=$(find_python)
  mkdir -p "$semshare_cache"
  # One set-up at a time: the lock is held until this script ends.
  exec 9>"$semshare_cache/setup.lock"
  if ! flock -n 9; then
    say "waiting for another set-up of this user to end"
    flock 9
  fi
  wanted=$(fingerprint "$python")
  if is_current "$wanted"; then
    say "Python packages: up to date in $semshare_venv"
  else
    bootstrap_uv "$python"
    make_venv "$python" "$wanted"
  fi
  generate_code
  put_package_on_path
}

# A package per version, each in a folder of its own that nobody imports from.
setup_report() {
  local python entry folder sources=() corpus="$semshare_cache/corpus"
  install_packages "$deploy/packages-report.txt"
  mapfile -t sources < <(read_list "$deploy/report-sources.txt")
  for entry in "${sources[@]}"; do
    folder="$corpus/${entry/==/-}"
    if [[ -d $folder ]]; then continue; fi
    python=$(find_python)
    mkdir -p "$corpus"
    bootstrap_uv "$python"
    rm -rf "$folder.partial"
    run_logged "report-${entry/==/-}" env UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never \
      "$uv" pip install --python "$python" --no-deps --target "$folder.partial" "$entry" ||
      fail "$entry could not be installed from PyPI" "Is the network up? This can be run again."
    mv "$folder.partial" "$folder"
  done
  say "texts of the fidelity report: sources in $corpus"
}

setup_part() {
  case $1 in
    build | check | runtime) install_packages "$deploy/packages-$1.txt" ;;
    python) setup_python ;;
    report) setup_report ;;
    *) fail "no part '$1'" "deploy/setup.sh --help lists them." ;;
  esac
}

main() {
  local part
  if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    usage
    return
  fi
  if (($# == 0)); then set -- build python; fi
  for part in "$@"; do setup_part "$part"; done
}

main "$@"
