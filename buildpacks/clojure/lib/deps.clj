;; Prints the class path of ./deps.edn: `clojure.main deps.clj MAVEN-REPOSITORY [ALIAS]`. With an alias, that of a tool,
;; as `clojure -T:ALIAS` has it: the alias's libraries and the app's root, not the app itself. The basis goes to the file
;; that BASIS names, where the tool looks for it.
(require '[clojure.tools.deps :as deps] '[clojure.java.io :as io])

(let [[repository alias] *command-line-args*
      project (deps/slurp-deps (io/file "deps.edn"))
      tool (get-in project [:aliases (keyword alias)])
      _ (when (and alias (not tool))
          (binding [*out* *err*] (println (str "deps.edn has no alias :" alias ".")))
          (System/exit 1))
      base (assoc project :mvn/local-repo repository)
      wanted (if tool
               (assoc base :paths ["."] :deps (merge {} (:replace-deps tool) (:deps tool) (:extra-deps tool)))
               base)
      basis (deps/create-basis {:user nil :project wanted})]
  (spit (System/getenv "BASIS") (pr-str basis))
  (print (:cp (meta basis) (deps/join-classpath (:classpath-roots basis))))
  (flush)
  (shutdown-agents))
