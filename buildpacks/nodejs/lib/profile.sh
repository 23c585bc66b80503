# shellcheck shell=bash
# Sourced when a dyno of this app starts.
export PATH="$HOME/node_modules/.bin:$PATH"
export NODE_HOME="${NODE_HOME:-/usr}"
export NODE_ENV="${NODE_ENV:-production}"
# A dyno should not ask a registry for a newer npm each time it starts.
export NPM_CONFIG_UPDATE_NOTIFIER="${NPM_CONFIG_UPDATE_NOTIFIER:-false}"
