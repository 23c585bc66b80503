//! Java, Scala and Clojure apps: Maven, sbt, Leiningen and tools.deps resolve from the real central repository.

use crate::bench::{Bench, answers, fixtures};
use crate::loopback::Served;
use std::process::Command;

#[test]
fn a_java_app_is_built_by_maven_and_knows_its_memory() {
    let bench = Bench::new("apps/java-bare");
    let built = bench.build().succeeded().said("-----> Java app detected").said("Using OpenJDK 17.");
    assert_eq!(built.types(), ["web: java $JAVA_OPTS -cp target/classes Hello"]);
    assert!(built.in_a_dyno("echo $JAVA_OPTS; java -version 2>&1").contains("-XX:+ExitOnOutOfMemoryError"));
    let url =
        "DATABASE_URL=postgres://me:secret@db.example:5432/shop bash -c '. .profile.d/jvm.sh; echo $JDBC_DATABASE_URL'";
    assert_eq!(built.in_a_dyno(url), "jdbc:postgresql://db.example:5432/shop?user=me&password=secret");
    Bench { cut_off: true, ..bench }.build().succeeded();
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_spring_boot_app_has_a_default_web_process() {
    let built = Bench::new("apps/java-spring").build().succeeded().said("Apache Maven 3.");
    assert_eq!(built.types(), ["web: java -Dserver.port=$PORT $JAVA_OPTS -jar target/hello-1.0.jar"]);
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn quarkus_and_micronaut_apps_have_a_default_web_process() {
    let quarkus = Bench::new("apps/java-quarkus").build().succeeded();
    let command =
        "java -Dquarkus.http.host=0.0.0.0 -Dquarkus.http.port=$PORT $JAVA_OPTS -jar target/quarkus-app/quarkus-run.jar";
    assert_eq!(quarkus.types(), [format!("web: {command}")]);
    let micronaut = Bench::new("apps/java-micronaut");
    let built = micronaut.build().succeeded();
    assert_eq!(built.types(), ["web: java -Dmicronaut.server.port=$PORT $JAVA_OPTS -jar target/hello-1.0.jar"]);
    Bench { cut_off: true, ..micronaut }.build().succeeded();
}

/// The files of Maven's wrapper, as its own plugin writes them into an app.
fn wrapper(kind: &str) -> tempfile::TempDir {
    let app = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join("apps/java-bare/pom.xml"), app.path().join("pom.xml")).unwrap();
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-ntp", "-q", "org.apache.maven.plugins:maven-wrapper-plugin:3.3.2:wrapper", "-Dmaven=3.9.9"]);
    let made = maven.arg(format!("-Dtype={kind}")).current_dir(app.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    app
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn mavens_wrapper_fetches_the_maven_that_the_app_is_built_with() {
    for kind in ["only-script", "bin"] {
        let files = wrapper(kind);
        let app = || {
            let mut bench = Bench::new("apps/java-bare");
            for name in ["mvnw", ".mvn/wrapper/maven-wrapper.properties", ".mvn/wrapper/maven-wrapper.jar"] {
                if let Ok(contents) = std::fs::read(files.path().join(name)) {
                    bench = bench.bytes(name, contents);
                }
            }
            bench.config("MAVEN_CUSTOM_GOALS", "--show-version install")
        };
        let bench = app();
        let built = bench.build().succeeded().said("Using Maven's wrapper (mvnw)").said("Apache Maven 3.9.9 ");
        answers(&built, "hello from web.1, Java ");
        Bench { cut_off: true, ..bench }.build().succeeded().said("Apache Maven 3.9.9 ");

        let text = Bench { cut_off: true, ..app() }.build().failed();
        assert!(
            text.contains("Maven can't be fetched from where the app's wrapper (mvnw) looks for it"),
            "{kind}: {text}"
        );
        let name = ".mvn/wrapper/maven-wrapper.properties";
        let properties = std::fs::read_to_string(files.path().join(name)).unwrap();
        let wrong = format!("{properties}\ndistributionSha256Sum={}\n", "0".repeat(64));
        let text = app().file(name, &wrong).build().failed();
        assert!(text.contains("is not the file whose checksum"), "{kind}: {text}");
    }
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn mistakes_of_java_apps_end_in_a_paragraph() {
    let java = || Bench::new("apps/java-bare");
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(java().file("pom.xml", "<project>"));
    assert!(text.contains("pom.xml can't be read"), "{text}");
    let text = failed(java().file("system.properties", "java.runtime.version=newest\n"));
    assert!(text.contains("system.properties does not name a version of Java: newest"), "{text}");
    let text = failed(java().file("system.properties", "java.runtime.version=99\n"));
    assert!(text.contains("system.properties asks for Java 99, but this machine has 17."), "{text}");
    let text = failed(java().file("src/main/java/Hello.java", "class Hello { int x = y; }"));
    assert!(text.contains("The app does not compile; the lines above say where."), "{text}");
    let text = failed(Bench { cut_off: true, ..java() });
    assert!(text.contains("The repository of Java packages can't be reached"), "{text}");
    java()
        .file("system.properties", "java.runtime.version=11\n")
        .build()
        .succeeded()
        .said("asks for Java 11, but this");
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_scala_app_is_staged_by_sbt() {
    let bench = Bench::new("apps/scala-bare");
    let built = bench.build().succeeded().said("-----> Scala app detected").said("Using sbt 1.11.7");
    assert_eq!(built.types(), ["web: target/universal/stage/bin/hello -Dhttp.port=$PORT"]);
    answers(&built, "hello from web.1, Scala 2.13.16");
    Bench { cut_off: true, ..bench }.build().succeeded();
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_clojure_app_becomes_an_uberjar() {
    let bench = Bench::new("apps/clojure-lein");
    let built = bench.build().succeeded().said("-----> Clojure app detected").said("Using Leiningen 2.");
    assert_eq!(built.types(), ["web: java $JAVA_OPTS -jar target/hello.jar"]);
    answers(&built, "hello from web.1, Clojure 1.11.1");
    Bench { cut_off: true, ..bench }.build().succeeded();
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_clojure_app_with_deps_edn_is_resolved_by_tools_deps() {
    let bench = Bench::new("apps/clojure-deps");
    let built = bench.build().succeeded().said("Resolving deps.edn");
    answers(&built, "hello from web.1, Clojure 1.11.1");
    Bench { cut_off: true, ..bench }.build().succeeded();
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_clojure_app_with_a_build_clj_becomes_what_its_tools_build_makes() {
    let bench = Bench::new("apps/clojure-build");
    let built = bench.build().succeeded().said("clojure -T:build uber");
    assert_eq!(built.types(), ["web: java $JAVA_OPTS -jar target/hello-1.0.0-standalone.jar"]);
    answers(&built, "hello from web.1, Clojure 1.11.1");
    let left: Vec<_> =
        [".m2", ".cpcache", ".clojure", ".gitlibs"].iter().filter(|name| built.made(name).exists()).collect();
    assert!(left.is_empty(), "{left:?} would be in the slug");
    Bench { cut_off: true, ..bench }.build().succeeded();

    let wrong = "(ns build) (defn uber [_] (throw (ex-info \"no such target\" {})))";
    let text = Bench::new("apps/clojure-build").file("build.clj", wrong).build().failed();
    assert!(text.contains("no such target"), "{text}");
    let text = Bench::new("apps/clojure-build").file("build.clj", "(ns build)").build().failed();
    assert!(text.contains("build.clj has no function uber.") && text.contains("BUILD_COMMAND"), "{text}");
    let text = Bench::new("apps/clojure-build").file("deps.edn", "{:paths [\"src\"]}").build().failed();
    assert!(text.contains("deps.edn has no alias :build.") && text.contains("BUILD_COMMAND"), "{text}");
}

/// Stands for Gradle, whose wrapper fetches a distribution from its vendor: lists tasks, and makes a jar.
const GRADLEW: &str = r#"#!/bin/bash
echo "args: $*; home: $GRADLE_USER_HOME"
case " $* " in
*" tasks "*) printf 'build - Assembles\nstage - For a deploy\n' ;;
*" stage "* | *" build "*) mkdir -p build/libs classes && javac -d classes src/Hello.java && jar -cfe build/libs/hello.jar Hello -C classes . ;;
*) exit 1 ;;
esac
"#;

#[test]
fn the_gradle_wrapper_is_asked_for_the_task_that_the_app_has() {
    let hello = std::fs::read_to_string(fixtures().join("apps/java-bare/src/main/java/Hello.java")).unwrap();
    let app = || {
        let bench = Bench::new("inline-hello/public").file("gradlew", GRADLEW).file("src/Hello.java", &hello);
        bench.file("build.gradle", "plugins { id 'org.springframework.boot' }")
    };
    let built = app().file("gradle/wrapper/gradle-wrapper.jar", "").build().succeeded();
    let built = built.said("-----> Gradle app detected").said("./gradlew stage").said("home: /build/cache/gradle/home");
    assert_eq!(built.types(), ["web: java -Dserver.port=$PORT $JAVA_OPTS -jar build/libs/hello.jar"]);
    answers(&built, "hello from web.1, Java");
    let built = app().file("gradle/wrapper/gradle-wrapper.jar", "").config("GRADLE_TASK", "build -x check");
    built.build().succeeded().said("./gradlew build -x check");
    let text = app().build().failed();
    assert!(text.contains("The app has no complete Gradle wrapper"), "{text}");
}

/// Lays Debian's Gradle out as its vendor's distribution, and an app beside it that has its wrapper.
const GRADLE: &str = r#"
cd "$1"
cp -rL /usr/share/gradle gradle-4.4.1
python3 -m zipfile -c gradle-4.4.1-bin.zip gradle-4.4.1
mkdir -p app/src/main/java && cd app
cp "$2" src/main/java/Hello.java
cat >build.gradle <<'END'
apply plugin: 'java'
jar { archiveName = 'hello.jar'; manifest { attributes 'Main-Class': 'Hello' } }
task stage(dependsOn: ['build'])
END
printf 'web: java $JAVA_OPTS -jar build/libs/hello.jar\n' >Procfile
gradle --quiet --no-daemon --offline --gradle-user-home "$1/home" wrapper
sed -i "s|^distributionUrl=.*|distributionUrl=http\\://127.0.0.1:$3/gradle-4.4.1-bin.zip|" gradle/wrapper/*.properties
echo "distributionSha256Sum=$(sha256sum ../*.zip | cut -d ' ' -f 1)" >>gradle/wrapper/gradle-wrapper.properties
rm -rf .gradle
"#;

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn the_real_gradle_comes_by_its_wrapper_and_is_checked() {
    let place = tempfile::tempdir().unwrap();
    let server = Served::http(place.path());
    let hello = fixtures().join("apps/java-bare/src/main/java/Hello.java");
    let mut lay_out = Command::new("bash");
    lay_out.args(["-euc", GRADLE, "-"]).arg(place.path()).arg(hello).arg(server.port.to_string());
    let made = lay_out.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    // One as old needs it on a Java as new.
    let opens = "--add-opens java.base/java.lang=ALL-UNNAMED";
    let app =
        || Bench { fixture: place.path().join("app"), ..Bench::new("apps/java-bare") }.config("GRADLE_OPTS", opens);
    let bench = app();
    let built = bench.build().succeeded().said("-----> Gradle app detected").said("./gradlew stage");
    assert_eq!(built.types(), ["web: java $JAVA_OPTS -jar build/libs/hello.jar"]);
    answers(&built, "hello from web.1, Java ");
    Bench { cut_off: true, ..bench }.build().succeeded();

    let text = Bench { cut_off: true, ..app() }.build().failed();
    assert!(text.contains("can't be reached from this machine."), "{text}");
    let properties =
        std::fs::read_to_string(place.path().join("app/gradle/wrapper/gradle-wrapper.properties")).unwrap();
    let (before, _) = properties.split_once("distributionSha256Sum=").unwrap();
    let other = format!("{before}distributionSha256Sum={}\n", "0".repeat(64));
    let text = app().file("gradle/wrapper/gradle-wrapper.properties", &other).build().failed();
    assert!(text.contains("Verification of Gradle distribution failed!"), "{text}");
}

#[test]
fn the_jvm_pack_gives_an_app_java_and_builds_nothing() {
    let bench = Bench::new("inline-hello/public").packs(&["heroku/jvm"]).file("Procfile", "web: java Hello.java");
    let built = bench.build().succeeded().said("Using OpenJDK ");
    assert!(built.in_a_dyno("java -version 2>&1; echo $JAVA_OPTS").contains("-Xmx"));
}
