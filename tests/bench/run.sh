#!/usr/bin/env bash
# Runs the benchmarks of this project, one after another.
#
#   tests/bench/run.sh [--json FILE] [NAME...]     default: realign match find transport
#
#   realign     rotation and copy of rows on the CPU, beside memcpy
#   match       alignment and candidates
#   index       a million references: memory, queries beside puts and deletes (10 minutes, 4 GB);
#               then the scan of their codes beside FAISS, where tests/bench/peers.sh installed it
#   find        FindMatch over RPC among 1,000 references, beside an empty call
#   transport   reads and puts of a prompt's KV by every transport, beside memcpy, TCP and, where
#               tests/bench/peers.sh installed them, Arrow Flight and Redis; both shapes
#   busy        the same with every core kept busy by other processes
#   readers     64 reads at once: the slowest beside the fastest, and memory for each
#   ttft        time to first token of a real model against its own full prefill (half an hour)
#   gpu_ttft    the same of Llama-3.1-8B's shape on a GPU by CUDA IPC; without one: 'not run'
#   fidelity    docs/fidelity.md over the whole corpus (hours); goes on from docs/fidelity.jsonl,
#               where every row behind the report is; needs deploy/setup.sh report
#
# Each verifies what it measures before it times it. With --json the Python benchmarks append a line
# for each figure: bench, case, value, unit, limit, limit_value, ratio, runs.
# Build first: tests/run.sh setup release. Other work on the machine shows in every figure.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../deploy/common.sh"

readonly build="$semshare_root/build/release"
readonly semshared="$build/server/semshared"
readonly peer=(--cpp_peer "$build/tests/bench/cpp_peer")

bench_realign() { "$build/tests/bench/realign_bench"; }
bench_match() { "$build/tests/bench/match_bench"; }
bench_index() {
  "$build/tests/bench/index_bench" ${1:+"--json=$2"}
  "$semshare_venv/bin/python" "$semshare_root/tests/bench/lsh_bench.py" \
    --index_bench "$build/tests/bench/index_bench" "$@"
}
bench_find() { run_python find_bench.py "${peer[@]}" "$@"; }
bench_transport() {
  run_python transport_bench.py "${peer[@]}" --shape smollm2 "$@"
  run_python transport_bench.py "${peer[@]}" --shape llama-8b "$@"
}
bench_busy() { run_python transport_bench.py "${peer[@]}" --shape smollm2 --busy "$@"; }
bench_readers() { run_python readers_bench.py "${peer[@]}" "$@"; }
bench_ttft() { run_python ttft_bench.py; }

# 77: there is no GPU, as it has said.
bench_gpu_ttft() { run_python gpu_ttft_bench.py "$@" || (($? == 77)); }

bench_fidelity() {
  local work="$semshare_root/build/fidelity" results="$semshare_root/docs/fidelity.jsonl" run
  run=(run --corpus "$work" --semshared "$semshared" --out "$results")
  run_eval corpus --out "$work"
  run_eval "${run[@]}"
  run_eval "${run[@]}" --variants ablation --lengths 4300 --first 1
  run_eval "${run[@]}" --timings 5
  run_eval fidelity --results "$results" --out "$semshare_root/docs/fidelity.md"
}

run_eval() {
  PYTHONPATH="$semshare_root/client/python" HF_HUB_OFFLINE=1 \
    "$semshare_venv/bin/python" -m semshare.eval "$@"
}

run_python() {
  local script=$1
  shift
  PYTHONPATH="$semshare_root/client/python" HF_HUB_OFFLINE=1 \
    "$semshare_venv/bin/python" "$semshare_root/tests/bench/$script" \
    --semshared "$semshared" "$@"
}

main() {
  local json=() names=()
  while (($# > 0)); do
    case $1 in
      -h | --help)
        sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        return
        ;;
      --json)
        (($# > 1)) || fail "--json needs a file"
        json=(--json "$2")
        shift
        ;;
      realign | match | index | find | transport | busy | readers | ttft | gpu_ttft | fidelity)
        names+=("$1")
        ;;
      *) fail "no benchmark '$1'" "tests/bench/run.sh --help lists them." ;;
    esac
    shift
  done
  [[ -x $semshared ]] || fail "$semshared is not built" "Run tests/run.sh setup release first."
  if ((${#names[@]} == 0)); then names=(realign match find transport); fi
  local name
  for name in "${names[@]}"; do
    heading "$name"
    "bench_$name" ${json[@]+"${json[@]}"}
  done
}

main "$@"
