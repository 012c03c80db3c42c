#!/usr/bin/env bash
# Registers, stack and spills of every CUDA kernel, as ptxas reports them, and how many 128-bit
# accesses the PTX of each file has. Needs nvcc and no GPU.
#
#   tests/bench/cuda_registers.sh [sm_80 sm_90 ...]
#
# Prints a table in Markdown (docs/gpu.md has the one of the last change) and exits 1 if a kernel
# spills.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
readonly nvcc
[[ -x $nvcc ]] || {
  echo "no nvcc on PATH or in /usr/local/cuda/bin" >&2
  exit 1
}
(($# > 0)) || set -- sm_80 sm_90

# As CMake compiles them in a release build.
readonly flags=(-std=c++20 -O3 -DNDEBUG --expt-relaxed-constexpr -I.)

# What ptxas says of one file for one architecture, as lines: kernel|registers|stack|spills.
report() {
  "$nvcc" "${flags[@]}" -arch="$2" -Xptxas -v -cubin -o /dev/null "$1" 2>&1 | c++filt |
    awk '
      /Compiling entry function/ {
        kernel = $0
        sub(/^[^\x27]*\x27/, "", kernel)
        sub(/\x27 for \x27.*$/, "", kernel)
      }
      /bytes stack frame/ { stack = $1; spills = $5 + $9 }
      /Used [0-9]+ registers/ {
        for (i = 1; i <= NF; ++i) if ($i == "Used") registers = $(i + 1)
        print kernel "|" registers "|" stack "|" spills
      }'
}

# Kernel<semshare::Bfloat16Element, (semshare::Codec)1>(...) -> Kernel<Bfloat16Element, 1>
short_name() {
  sed -E 's/\(anonymous namespace\):://g; s/semshare:://g; s/\(Codec\)//g;
    s/^void //; s/\(bool\)//g; s/\(int\)//g; s/\(.*$//'
}

spilled=0
echo "| kernel | arch | registers | stack, bytes | spills, bytes |"
echo "|---|---|---|---|---|"
for file in kernels/cuda/*.cu; do
  for arch in "$@"; do
    while IFS='|' read -r kernel registers stack spills; do
      name=$(short_name <<<"$kernel")
      echo "| \`$name\` | $arch | $registers | $stack | $spills |"
      if ((spills > 0)); then spilled=1; fi
    done < <(report "$file" "$arch")
  done
done

echo
echo "| file | 128-bit loads | 128-bit stores |"
echo "|---|---|---|"
for file in kernels/cuda/*.cu; do
  ptx=$("$nvcc" "${flags[@]}" -arch="$1" -ptx -o - "$file")
  loads=$(grep -cE 'ld(\.global)?(\.nc)?\.v4\.(u32|b32|f32)' <<<"$ptx" || true)
  stores=$(grep -cE 'st(\.global)?\.v4\.(u32|b32|f32)' <<<"$ptx" || true)
  echo "| ${file##*/} | $loads | $stores |"
done

if ((spilled > 0)); then
  echo "a kernel spills registers" >&2
  exit 1
fi
