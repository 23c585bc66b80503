# shellcheck shell=bash
# Sourced when a dyno of this app starts.
export PATH="$PATH:$HOME/bin"
