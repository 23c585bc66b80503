# shellcheck shell=bash
# Sourced when a dyno of this app starts.
export PATH="$HOME/node_modules/.bin:$HOME/.heroku/node/bin:$HOME/.heroku/yarn/bin:$HOME/.heroku/pnpm/bin:$PATH"
if [ -d "$HOME/.heroku/node" ]; then export NODE_HOME="$HOME/.heroku/node"; else export NODE_HOME="${NODE_HOME:-/usr}"; fi
export NODE_ENV="${NODE_ENV:-production}"
# A dyno should not ask a registry for a newer npm each time it starts.
export NPM_CONFIG_UPDATE_NOTIFIER="${NPM_CONFIG_UPDATE_NOTIFIER:-false}"
