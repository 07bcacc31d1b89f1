#!/usr/bin/env bash
# All checks and tests. Installs what they need, then runs every phase even if one before it failed, prints what each
# took, and ends with "N passed, N failed". Needs: cargo (rustup), node >= 20 with npm, python3, a network that reaches
# the package registries. Everything it makes lies in target/ and crates/clarion-tests/js/node_modules.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
export CARGO_NET_RETRY=5
if [[ "${CI:-}" == true ]]; then
  export CARGO_INCREMENTAL=0
fi

readonly VENV=target/venv
readonly JS=crates/clarion-tests/js
readonly REQUIREMENTS=crates/clarion-tests/requirements.txt
readonly OUTPUT=target/test-output.txt
failed_phases=()

# Tries a command up to three times; registries and mirrors have bad moments.
retry() {
  local attempt
  for attempt in 1 2 3; do
    if "$@"; then
      return 0
    fi
    echo "attempt $attempt of 3 failed: $*" >&2
  done
  return 1
}

# The one list of Debian packages, each with the check that makes it unnecessary.
missing_packages() {
  command -v cc >/dev/null || echo gcc libc6-dev
  command -v curl >/dev/null || echo curl
  command -v openssl >/dev/null || echo openssl
  PATH=$PATH:/usr/sbin command -v mosquitto >/dev/null || echo mosquitto
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  command -v mosquitto_sub >/dev/null || echo mosquitto-clients
  command -v chromium >/dev/null || echo chromium
}

# Services that packages bring (Mosquitto's) are not started: Debian asks this file first.
keep_services_down() {
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "$@" tee "$policy" >/dev/null
    "$@" chmod +x "$policy"
    # shellcheck disable=SC2064
    trap "$* rm -f $policy" EXIT
  fi
}

install_packages() {
  local packages sudo=()
  read -r -a packages <<<"$(missing_packages | tr '\n' ' ')"
  if ((${#packages[@]} == 0)); then
    return 0
  fi
  if ((EUID != 0)); then
    sudo=(sudo)
  fi
  export DEBIAN_FRONTEND=noninteractive
  keep_services_down "${sudo[@]}"
  retry "${sudo[@]}" apt-get update -qq
  retry "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

install_rust_parts() {
  cargo fmt --version >/dev/null 2>&1 || retry rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || retry rustup component add clippy
}

install_js() {
  local stamp=$JS/node_modules/.installed
  if ! cmp -s "$JS/package-lock.json" "$stamp"; then
    retry npm --prefix "$JS" ci --no-audit --no-fund
    cp "$JS/package-lock.json" "$stamp"
  fi
}

install_python() {
  local stamp=$VENV/.installed
  if ! cmp -s "$REQUIREMENTS" "$stamp"; then
    python3 -m venv --clear "$VENV"
    retry "$VENV/bin/pip" install --quiet --disable-pip-version-check --requirement "$REQUIREMENTS"
    cp "$REQUIREMENTS" "$stamp"
  fi
}

install_needs() {
  local tool
  for tool in cargo node npm python3; do
    if ! command -v "$tool" >/dev/null; then
      echo "$tool is missing: install it first" >&2
      return 1
    fi
  done
  mkdir -p target
  install_packages
  install_rust_parts
  install_js
  install_python
}

check_dependencies() {
  if command -v cargo-deny >/dev/null; then
    cargo deny check
  else
    echo "cargo-deny is absent on this machine: licences and bans (deny.toml) are not checked"
  fi
}

check_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace
}

run_tests() {
  cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$OUTPUT"
}

# Runs one phase and prints what it took. The phase runs in a subshell of its own, so that errexit holds in it.
phase() {
  local name=$1 started=$SECONDS status=0
  shift
  echo "== $name"
  set +e
  (
    set -e
    "$@"
  )
  status=$?
  set -e
  if ((status == 0)); then
    echo "== $name: ok, $((SECONDS - started)) s"
  else
    echo "== $name: FAILED (exit $status), $((SECONDS - started)) s"
    failed_phases+=("$name")
  fi
  return 0
}

# Sums the "test result:" lines of cargo. A failed phase without a failed test (a build error, a lint) counts as one.
summary() {
  local counts passed=0 failed=0 ignored=0
  if [[ -f $OUTPUT ]]; then
    counts=$(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$OUTPUT")
    read -r passed failed ignored <<<"$counts"
  fi
  echo "== all phases: $SECONDS s"
  if ((${#failed_phases[@]} > 0)); then
    echo "failed phases: ${failed_phases[*]}"
  fi
  local name without_tests=0
  for name in "${failed_phases[@]}"; do
    if [[ $name != tests ]] || ((failed == 0)); then
      without_tests=$((without_tests + 1))
    fi
  done
  failed=$((failed + without_tests))
  if ((ignored > 0)); then
    echo "$ignored ignored"
  fi
  echo "$passed passed, $failed failed"
  ((failed == 0))
}

rm -f "$OUTPUT"
phase needs install_needs
if ((${#failed_phases[@]} == 0)); then
  phase format cargo fmt --all --check
  phase clippy cargo clippy --locked --workspace --all-targets -- -D warnings
  phase docs check_docs
  phase dependencies check_dependencies
  phase tests run_tests
fi
summary
