#!/usr/bin/env bash
# Packs what was built into one archive that runs on another Linux: a GPU machine without compilers.
#
#   deploy/bundle.sh [ARCHIVE]     default: build/semshare-<version>-<machine>.tar.xz
#
#   bin/           semshared, semsharectl, the conformance tests and the benchmarks
#   lib/           the shared libraries they need, found by a relative RPATH; not glibc, not the
#                  driver, and not cuBLAS, which alone is ten times the limit below
#   wheels/        the Python client, and what it needs beside PyTorch and Transformers:
#                  pip install --no-index --find-links wheels semshare
#   bench/         gpu_ttft_bench.py, which needs them
#   run-check.sh   says what the machine lacks; with --run it runs the conformance tests
#
# Builds the release preset first; takes the CUDA backend where nvcc is. Needs patchelf, the
# environment of `deploy/setup.sh python` for the generated code, and PyPI for the wheels. Fails
# above 40 MiB.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly limit_bytes=$((40 * 1024 * 1024))
readonly build="$semshare_root/build/release"
readonly programs=(
  server/semshared
  client/cpp/semsharectl
  tests/kernels/backend_test
  tests/kernels/backend_realign_test
  tests/kernels/backend_codes_test
  tests/kernels/cuda_options_test
  tests/kernels/cuda_realign_row_test
  tests/bench/cuda_bench
  tests/bench/realign_bench
)

# Of the Python client's own lower bound, and later.
readonly python_versions=(3.11 3.12 3.13)
readonly pip="$semshare_cache/uv/bin/pip" uv="$semshare_cache/uv/bin/uv"

usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# Parts of glibc and of the driver belong to the machine: libraries of another one would not fit.
belongs_to_machine() {
  case ${1##*/} in
    ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | \
      libresolv.so.* | libutil.so.* | libanl.so.* | libnsl.so.* | libcuda.so.* | libnvidia*)
      return 0
      ;;
  esac
  return 1
}

build_programs() {
  local targets=("${programs[@]##*/}")
  use_ccache
  cmake --preset release >/dev/null
  cmake --build --preset release --target "${targets[@]}"
}

copy_programs() {
  local program
  mkdir -p "$1/bin"
  for program in "${programs[@]}"; do
    install -m 755 "$build/$program" "$1/bin/"
    strip --strip-unneeded "$1/bin/${program##*/}"
    patchelf --set-rpath "\$ORIGIN/../lib" "$1/bin/${program##*/}"
  done
}

# Libraries go in under the names that programs ask for. `ldd` of the build's programs names all of
# them, those that libraries need included.
copy_libraries() {
  local program name path
  mkdir -p "$1/lib"
  for program in "${programs[@]}"; do
    while read -r name path; do
      [[ $path != not ]] || fail "$program needs $name, which is not there"
      if belongs_to_machine "$name" || [[ -f $1/lib/$name ]]; then continue; fi
      install -m 644 "$path" "$1/lib/$name"
      strip --strip-unneeded "$1/lib/$name"
      patchelf --set-rpath "\$ORIGIN" "$1/lib/$name"
    done < <(ldd "$build/$program" | sed -nE 's/^\s*(\S+) => (\S+).*/\1 \2/p')
  done
}

# numpy is not among them: PyTorch brings its own.
copy_wheels() {
  local package="$semshare_root/client/python" source="$bundle_stage/source" version
  [[ -x $semshare_venv/bin/python ]] ||
    fail "the Python environment is missing" "Run deploy/setup.sh python first."
  mkdir -p "$1/wheels" "$1/bench" "$source"
  cp -r "$package/pyproject.toml" "$package/README.md" "$package/semshare" "$source/"
  rm -rf "$source/semshare/v1"
  "$semshare_venv/bin/python" -m grpc_tools.protoc -I "$semshare_root/proto" \
    --python_out="$source" --pyi_out="$source" --grpc_python_out="$source" \
    "$semshare_root"/proto/semshare/v1/*.proto
  "$uv" build --quiet --wheel --out-dir "$1/wheels" "$source" ||
    fail "the wheel of the Python client could not be built"
  rm -f "$1/wheels/.gitignore"
  for version in "${python_versions[@]}"; do
    "$pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
      --python-version "$version" --dest "$1/wheels" \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
      --platform manylinux2014_x86_64 \
      "$(pinned grpcio)" "$(pinned protobuf)" "$(pinned typing-extensions)" ||
      fail "the wheels for Python $version could not be had from PyPI"
  done
  cp "$semshare_root"/tests/bench/{gpu_ttft_bench,command}.py "$1/bench/"
}

# PACKAGE==VERSION as this project's own environment has it.
pinned() { grep -E "^$1==" "$semshare_root/deploy/requirements.txt" | cut -d ' ' -f 1; }

# The newest version of glibc's symbols that anything in the bundle asks for.
required_glibc() {
  find "$1/bin" "$1/lib" -type f -exec objdump -T {} + 2>/dev/null |
    grep -oE 'GLIBC_[0-9]+\.[0-9]+' | sort -uV | tail -n 1 | cut -d_ -f2
}

check_size() {
  local bytes
  bytes=$(stat -c %s "$1")
  say "$1: $(awk "BEGIN { printf \"%.1f\", $bytes / 1048576 }") MiB"
  if ((bytes > limit_bytes)); then
    fail "the archive is larger than $((limit_bytes / 1048576)) MiB"
  fi
}

main() {
  local version name archive stage
  case ${1:-} in
    -h | --help)
      usage
      return
      ;;
  esac
  command -v patchelf >/dev/null || fail "patchelf is missing" "Install the package patchelf."
  version=$(sed -nE 's/^project\(semshare VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)
  name="semshare-$version-$(uname -m)"
  archive=${1:-"$semshare_root/build/$name.tar.xz"}
  build_programs
  # Not local: the trap runs when this function is over.
  bundle_stage=$(mktemp -d)
  trap 'rm -rf "$bundle_stage"' EXIT
  stage="$bundle_stage/$name"
  mkdir -p "$stage"
  copy_programs "$stage"
  copy_libraries "$stage"
  copy_wheels "$stage"
  install -m 755 "$semshare_root/deploy/bundle-check.sh" "$stage/run-check.sh"
  cp "$semshare_root/LICENSE" "$stage/"
  required_glibc "$stage" >"$stage/required-glibc"
  tar -C "$bundle_stage" --owner=0 --group=0 --sort=name -cf - "$name" | xz -6 -T0 >"$archive"
  check_size "$archive"
}

cd "$semshare_root"
main "$@"
