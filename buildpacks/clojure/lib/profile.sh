# shellcheck shell=bash
# Sourced when a dyno of this app starts.
export LEIN_NO_DEV="${LEIN_NO_DEV:-yes}" RING_ENV="${RING_ENV:-production}"
