#!/usr/bin/env bash
# Installs what the benchmarks compare with, in the environment that deploy/setup.sh python made.
#
#   tests/bench/peers.sh
#
# Arrow Flight (PyPI's pyarrow), Mooncake's transfer engine (its build without CUDA), Redis
# (Debian's server, PyPI's client with its C parser) and FAISS (PyPI's faiss-cpu). Not needed to
# build, test or run semshare.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../deploy/common.sh"

readonly pyarrow_version=26.0.1
readonly redis_version=8.1.0
readonly mooncake_version=0.3.13.post1
readonly faiss_version=1.15.1

[[ -x $semshare_venv/bin/python ]] ||
  fail "no Python environment" "Run deploy/setup.sh python first."
UV_SYSTEM_CERTS=1 VIRTUAL_ENV="$semshare_venv" \
  "$semshare_cache/uv/bin/uv" pip install \
  "pyarrow==$pyarrow_version" "redis[hiredis]==$redis_version" \
  "faiss-cpu==$faiss_version"
# Its engine needs none of the packages that its command-line tools do.
UV_SYSTEM_CERTS=1 VIRTUAL_ENV="$semshare_venv" \
  "$semshare_cache/uv/bin/uv" pip install --no-deps \
  "mooncake-transfer-engine-non-cuda==$mooncake_version"
ldconfig -p | grep -q 'libibverbs\.so\.1' ||
  say "Mooncake also needs: apt-get install --no-install-recommends libibverbs1"
command -v redis-server >/dev/null ||
  say "Redis also needs its server: apt-get install --no-install-recommends redis-server"
