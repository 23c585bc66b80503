;; Runs the app's build.clj as `clojure -T:build uber` would.
(require 'build)

(if-let [uber (resolve 'build/uber)]
  (uber {})
  (do (println "build.clj has no function uber.")
      (System/exit 1)))
(shutdown-agents)
