#!/usr/bin/env bash
# Every check that CI runs: builds, tests under three builds, analysis, style, Python.
#
#   tests/run.sh [PHASE...]      default: all of them, in this order
#
#   setup          installs what is missing (deploy/setup.sh build check python)
#   release        builds everything, CUDA where nvcc is; runs all C++ tests
#   format         clang-format
#   shell          shellcheck
#   python-style   ruff and mypy
#   pytest         the Python tests, against the binaries of `release`
#   thread-safety  builds the libraries with clang's analysis of lock annotations
#   clang-tidy     clang-tidy over the sources that changed since it last passed
#   asan           builds and runs the C++ tests with AddressSanitizer and UBSan
#   tsan           the same with ThreadSanitizer; tests/testing/tsan.supp has what is suppressed
#
# A phase that fails does not stop the others. The last lines are the test runners' own summaries
# and `N passed, N failed`, where a phase that fails without a test runner counts as one failure.
# `, N skipped` follows if anything was skipped: ctest's and pytest's skipped tests, which are not
# among those passed, and the skipped cases within binaries that passed. The exit status is 0 only
# if nothing failed. Logs are in build/logs.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../deploy/common.sh"

readonly phases=(setup release format shell python-style pytest thread-safety clang-tidy asan tsan)
readonly build="$semshare_root/build"
readonly logs="$build/logs"
readonly bin="$semshare_venv/bin"
readonly ruff_config="$semshare_root/client/python/pyproject.toml"
jobs=$(nproc)
readonly jobs

usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# ---- Phases. Each runs in a process of its own, in the repository's root, with `set -e`. ----

phase_setup() { deploy/setup.sh build check python; }

phase_release() {
  build_preset release
  run_ctest release
}

phase_asan() {
  build_preset asan
  export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1"
  export UBSAN_OPTIONS="print_stacktrace=1"
  export LSAN_OPTIONS="suppressions=$semshare_root/tests/testing/lsan.supp:print_suppressions=0"
  if [[ ! -f tests/testing/lsan.supp ]]; then unset LSAN_OPTIONS; fi
  run_ctest asan
}

phase_tsan() {
  build_preset tsan
  export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1"
  if [[ -f tests/testing/tsan.supp ]]; then
    TSAN_OPTIONS+=":suppressions=$semshare_root/tests/testing/tsan.supp"
  fi
  # GCC 12's runtime does not know the memory maps of kernels with more than 28 random bits.
  if setarch "$(uname -m)" -R true 2>/dev/null; then
    run_ctest tsan setarch "$(uname -m)" -R
  else
    run_ctest tsan
  fi
}

phase_thread-safety() {
  local libraries
  use_ccache
  cmake --preset thread-safety >"$logs/configure-thread-safety.log" 2>&1 ||
    show_and_fail "$logs/configure-thread-safety.log"
  mapfile -t libraries < <(ninja -C "$build/thread-safety" -t targets all |
    sed -n 's/^\(.*\.a\): .*/\1/p')
  ((${#libraries[@]} > 0)) || fail "the thread-safety build has no libraries"
  ninja -C "$build/thread-safety" "${libraries[@]}"
}

phase_format() {
  local files
  mapfile -t files < <(cpp_files)
  clang-format --dry-run -Werror "${files[@]}"
  say "${#files[@]} files are formatted"
}

phase_clang-tidy() {
  [[ -f build/release/compile_commands.json ]] ||
    fail "clang-tidy reads build/release" "Run the phase 'release' first."
  "$bin/python" tests/tidy/clang_tidy.py --build build/release --jobs "$jobs" \
    --stamps "$semshare_cache/clang-tidy"
}

phase_shell() {
  shellcheck -x deploy/*.sh tests/*.sh tests/bench/*.sh .ci/run
  say "shellcheck has nothing to say"
}

phase_python-style() {
  local status=0
  local ours=(--config "$ruff_config" --extend-exclude '*_pb2*.py*' client/python tests)
  "$bin/ruff" check "${ours[@]}" || status=1
  "$bin/ruff" format --check "${ours[@]}" || status=1
  (cd client/python && "$bin/mypy" semshare) || status=1
  return "$status"
}

phase_pytest() {
  export SEMSHARE_SEMSHARED="$build/release/server/semshared"
  export SEMSHARE_SEMSHARECTL="$build/release/client/cpp/semsharectl"
  # The model is in a package: a test that asks a hub for one fails at once instead of hanging.
  export HF_HUB_OFFLINE=1 PYTHONPATH="$semshare_root/client/python"
  # Exits 5 if it finds no test, which is a failure here.
  "$bin/python" -m pytest --rootdir "$semshare_root" -c "$ruff_config" --color=no -q \
    --durations=10 -o console_output_style=classic tests 2>&1 | tee "$logs/pytest.log"
}

# ---- What the phases share. ----

cpp_files() {
  find proto kernels storage server client/cpp tests -type f \
    '(' -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' ')' | sort
}

show_and_fail() {
  tail -n 40 "$1" >&2
  fail "the whole log is $1"
}

build_preset() {
  local preset=$1
  use_ccache
  cmake --preset "$preset" >"$logs/configure-$preset.log" 2>&1 ||
    show_and_fail "$logs/configure-$preset.log"
  # -k 0: one run shows every error.
  cmake --build --preset "$preset" -- -k 0
}

# run_ctest PRESET [WRAPPER...]
run_ctest() {
  local preset=$1
  shift
  # What a test that passed has printed is in ctest's own log alone.
  rm -f "$(ctest_log "$preset")"
  "$@" ctest --preset "$preset" --parallel "$jobs" --no-tests=error 2>&1 |
    tee "$logs/ctest-$preset.log"
}

ctest_log() { say "$build/$1/Testing/Temporary/LastTest.log"; }

# ---- Running the phases and summing up. ----

# The line that the phase's test runner closed with, or nothing.
closing_line() {
  case $1 in
    release | asan | tsan)
      grep -sE '^[0-9]+% tests passed' "$logs/ctest-$1.log" | tail -n 1
      ;;
    pytest) grep -sE '^(=+ )?[0-9]+ [a-z]+.* in [0-9.]+s' "$logs/pytest.log" | tail -n 1 ;;
  esac || true
}

# number_before WORD TEXT: the number that stands before a word, or 0.
number_before() {
  local pattern="([0-9]+) $1"
  if [[ $2 =~ $pattern ]]; then say "${BASH_REMATCH[1]}"; else say 0; fi
}

# skipped_binaries PHASE: how many tests ctest has skipped. It counts them as passed.
skipped_binaries() { grep -scE '^\s*[0-9]+ - .* \(Skipped\)$' "$logs/ctest-$1.log" || true; }

# skipped_cases PHASE: how many cases the binaries have skipped that ctest ran, by their summaries.
skipped_cases() {
  local log
  log=$(ctest_log "$1")
  [[ -f $log ]] || { say 0 && return; }
  sed -nE 's/^\[  SKIPPED \] ([0-9]+) tests?, listed below:$/\1/p' "$log" |
    awk '{ cases += $1 } END { print cases + 0 }'
}

# Adds a phase's tests to passed, failed and skipped. A phase that failed adds at least one failure.
count_phase() {
  local phase=$1 status=$2 line ran_failed=0 total not_run
  line=$(closing_line "$phase")
  if [[ $line == *"tests passed"* ]]; then
    total=${line##*out of }
    ran_failed=$(number_before 'tests failed' "$line")
    not_run=$(skipped_binaries "$phase")
    passed=$((passed + total - ran_failed - not_run))
    skipped=$((skipped + not_run + $(skipped_cases "$phase")))
  elif [[ -n $line ]]; then
    ran_failed=$(($(number_before failed "$line") + $(number_before error "$line")))
    passed=$((passed + $(number_before passed "$line")))
    skipped=$((skipped + $(number_before skipped "$line")))
  fi
  if ((status != 0 && ran_failed == 0)); then ran_failed=1; fi
  failed=$((failed + ran_failed))
  if [[ -n $line ]]; then closings+=("$line"); fi
}

run_phase() {
  local phase=$1 status=0 began=$SECONDS
  heading "$phase"
  rm -f "$logs/ctest-$phase.log" "$logs/$phase.log"
  bash "${BASH_SOURCE[0]}" --only "$phase" </dev/null || status=$?
  count_phase "$phase" "$status"
  local verdict=ok
  if ((status != 0)); then verdict="FAILED (status $status)"; fi
  verdicts+=("$(printf '%-14s %5d s  %s' "$phase" $((SECONDS - began)) "$verdict")")
  say "-- $phase: $verdict, $((SECONDS - began)) s"
  return "$status"
}

check_phases() {
  local phase
  for phase in "$@"; do
    [[ " ${phases[*]} " == *" $phase "* ]] ||
      fail "no phase '$phase'" "The phases are: ${phases[*]}"
  done
}

sum_up() {
  heading "summary"
  printf '%s\n' "${verdicts[@]}" ''
  if ((${#closings[@]} > 0)); then printf '%s\n' "${closings[@]}"; fi
  local closing="$passed passed, $failed failed"
  if ((skipped > 0)); then closing+=", $skipped skipped"; fi
  say "$closing"
  ((failed == 0))
}

main() {
  local phase passed=0 failed=0 skipped=0 verdicts=() closings=()
  case ${1:-} in
    -h | --help)
      usage
      return
      ;;
    --only)
      "phase_$2"
      return
      ;;
  esac
  check_phases "$@"
  if (($# == 0)); then set -- "${phases[@]}"; fi
  mkdir -p "$logs"
  for phase in "$@"; do
    # Without its tools no other phase can say anything.
    run_phase "$phase" || [[ $phase != setup ]] || break
  done
  sum_up
}

cd "$semshare_root"
main "$@"
