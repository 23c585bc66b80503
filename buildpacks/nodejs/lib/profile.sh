# shellcheck shell=bash
# Sourced when a dyno of this app starts.
export PATH="$HOME/node_modules/.bin:$PATH"
export NODE_HOME="${NODE_HOME:-/usr}"
export NODE_ENV="${NODE_ENV:-production}"
