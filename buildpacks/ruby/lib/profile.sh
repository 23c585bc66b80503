# shellcheck shell=bash
# Sourced when a dyno of this app starts.
export PATH="$HOME/bin:$HOME/vendor/bundle/bin:$PATH"
export LANG="${LANG:-C.UTF-8}"
export RACK_ENV="${RACK_ENV:-production}"
export RAILS_ENV="${RAILS_ENV:-$RACK_ENV}"
export RAILS_SERVE_STATIC_FILES="${RAILS_SERVE_STATIC_FILES:-enabled}" RAILS_LOG_TO_STDOUT="${RAILS_LOG_TO_STDOUT:-enabled}"
export BUNDLE_PATH="vendor/bundle" BUNDLE_BIN="vendor/bundle/bin" BUNDLE_DEPLOYMENT="${BUNDLE_DEPLOYMENT:-1}"
export BUNDLE_WITHOUT="${BUNDLE_WITHOUT:-development:test}"
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}" DISABLE_SPRING="${DISABLE_SPRING:-1}"
# Longer than the router keeps an idle connection, so that it is never the app that closes first.
export PUMA_PERSISTENT_TIMEOUT="${PUMA_PERSISTENT_TIMEOUT:-95}"
