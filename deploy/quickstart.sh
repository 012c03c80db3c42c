#!/usr/bin/env bash
# From a clean clone to a real model that answers faster: installs, builds, and runs the scenario.
#
#   deploy/quickstart.sh [ARGUMENT...]     arguments go to `python -m semshare.quickstart`
#
# It can be interrupted and run again; what is done is not done twice. Its store is in
# build/quickstart, made anew each time; while a broker still runs on it, it is left alone and the
# script ends.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly semshared="$semshare_root/build/release/server/semshared"
readonly semsharectl="$semshare_root/build/release/client/cpp/semsharectl"
readonly data_dir="$semshare_root/build/quickstart"

build() {
  heading "Building semshared and semsharectl (a few minutes the first time)"
  use_ccache
  cd "$semshare_root"
  run_logged configure cmake --preset release ||
    fail "cmake could not configure; the reason is above"
  cmake --build --preset release --target semshared semsharectl ||
    fail "the build failed; the compiler's message is above"
}

main() {
  if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    return
  fi
  heading "Setting up (1 of 3)"
  "$semshare_root/deploy/setup.sh" build python
  heading "Building (2 of 3)"
  build
  heading "Running the scenario on a real model (3 of 3)"
  # The model is in a package; nothing is to be fetched from a hub.
  # Model threads that spin for long while they wait would take the broker's core; ones that do not
  # spin at all sleep at each of a prefill's thousands of barriers.
  OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000} \
    HF_HUB_OFFLINE=1 \
    "$semshare_venv/bin/python" -u -m semshare.quickstart \
    --semshared "$semshared" --semsharectl "$semsharectl" --data_dir "$data_dir" --fresh "$@"
}

main "$@"
