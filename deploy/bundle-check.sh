#!/usr/bin/env bash
# Says whether this machine can run what lies beside this script, and what it lacks.
#
#   ./run-check.sh [--cuda] [--run]
#
#   --cuda   a missing driver or cuBLAS is a failure, too
#   --run    then runs the conformance tests, which skip the CUDA backend where there is no device
#
# Exits 0 if nothing that was asked for is missing (and the tests passed).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly cublas=libcublas.so.13
missing=0
missing_cuda=0
cublas_folder=""

usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
found() { printf 'ok       %s\n' "$*"; }
lacks() {
  printf 'MISSING  %s\n' "$*"
  missing=1
}
lacks_cuda() {
  printf 'no GPU   %s\n' "$*"
  missing_cuda=1
}

check_machine() {
  local machine
  machine=$(uname -m)
  if [[ $machine == x86_64 ]]; then
    found "machine $machine"
  else
    lacks "an x86_64 machine: this is $machine"
  fi
}

check_glibc() {
  local wanted have older
  wanted=$(<"$here/required-glibc")
  have=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2 || true)
  older=$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)
  if [[ -n $have && $older == "$wanted" ]]; then
    found "glibc $have (needs $wanted)"
  else
    lacks "glibc $wanted or newer: this machine has ${have:-another C library}"
  fi
}

check_libraries() {
  local program lost
  for program in "$here"/bin/*; do
    # A program that is no dynamic one makes ldd fail, and lacks nothing.
    lost=$({ ldd "$program" 2>&1 || true; } | sed -nE 's/^\s*(\S+) => not found.*/\1/p')
    if [[ -n $lost ]]; then lacks "libraries of ${program##*/}: $(tr '\n' ' ' <<<"$lost")"; fi
  done
  found "libraries of $(find "$here/bin" -type f | wc -l) programs looked up"
}

# The folder of a library: where the loader looks, and where toolkits and Python packages put it.
# Nothing if it is nowhere; folders that are not there make find complain, which means nothing.
folder_of() {
  local path folders
  path=$({ ldconfig -p || /sbin/ldconfig -p || true; } 2>/dev/null |
    sed -nE "s/^\s*$1 .*=> (.*)$/\1/p" | sed -n 1p)
  if [[ -z $path ]]; then
    IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
    folders+=(/usr/local/cuda*/lib64 /opt "${HOME:-/root}" /usr/lib/python3 /usr/local/lib)
    path=$({ find "${folders[@]}" -name "$1" 2>/dev/null || true; } | sed -n 1p)
  fi
  if [[ -n $path ]]; then dirname "$path"; fi
}

check_cuda() {
  local driver
  driver=$(folder_of libcuda.so.1)
  if [[ -z $driver ]]; then
    lacks_cuda "no driver (libcuda.so.1): the CUDA backend refuses to start, the CPU one works"
    return
  fi
  found "driver in $driver"
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | sed 's/^/         /' || true
  fi
  cublas_folder=$(folder_of "$cublas")
  if [[ -z $cublas_folder ]]; then
    lacks_cuda "no $cublas: install CUDA 13's cuBLAS, or pip install nvidia-cublas, and put its" \
      "folder into LD_LIBRARY_PATH"
    return
  fi
  found "cuBLAS in $cublas_folder"
  printf '         LD_LIBRARY_PATH=%s lets the programs find it\n' "$cublas_folder"
}

run_tests() {
  local test status=0
  for test in "$here"/bin/*_test; do
    printf '\n== %s\n' "${test##*/}"
    LD_LIBRARY_PATH="$cublas_folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$test" \
      --gtest_brief=1 || status=1
  done
  return "$status"
}

main() {
  local word run=0 cuda=0
  for word in "$@"; do
    case $word in
      --run) run=1 ;;
      --cuda) cuda=1 ;;
      -h | --help)
        usage
        return
        ;;
      *)
        usage >&2
        return 2
        ;;
    esac
  done
  check_machine
  check_glibc
  check_libraries
  check_cuda
  if ((missing > 0 || (cuda > 0 && missing_cuda > 0))); then return 1; fi
  if ((run > 0)); then run_tests; fi
}

main "$@"
