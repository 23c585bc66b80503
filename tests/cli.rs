//! The command line against a Platform API that answers by script: what people see, and what the server is asked.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake_api.rs"]
mod fake_api;
#[path = "support/session.rs"]
mod session;
#[path = "support/tty.rs"]
mod tty;

use fake_api::{Answer, FakeApi, Program, TOKEN};
use serde_json::{Value, json};
use session::Session;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tty::Terminal;

const THEN: &str = "2026-01-02T03:04:05Z";

fn app(name: &str) -> Value {
    json!({
        "id": "01234567-89ab-cdef-0123-456789abcdef", "name": name, "maintenance": false,
        "web_url": format!("http://{name}.localhost:8080/"), "git_url": format!("http://localhost:5000/{name}.git"),
        "owner": { "id": "1", "email": "admin@localhost" }, "region": { "id": "2", "name": "here" },
        "stack": { "id": "3", "name": "host" }, "slug_size": 21_349_000, "repo_size": null, "released_at": THEN,
    })
}

fn dyno(name: &str, state: &str, command: &str) -> Value {
    let kind = name.split('.').next().unwrap();
    json!({
        "name": name, "type": kind, "size": "Basic", "state": state, "command": command, "updated_at": THEN,
        "release": { "version": 3 },
    })
}

fn release(version: u32, description: &str, status: &str, current: bool) -> Value {
    json!({
        "id": format!("release-{version}"), "version": version, "description": description, "status": status,
        "current": current, "user": { "id": "1", "email": "admin@localhost" }, "created_at": THEN,
        "addon_plan_names": [], "eligible_for_rollback": status == "succeeded" && version > 2,
        "output_stream_url": null,
    })
}

fn build(id: &str, status: &str) -> Value {
    json!({
        "id": id, "status": status, "created_at": THEN, "user": { "id": "1", "email": "admin@localhost" },
        "source_blob": { "version": "1a2b3c4d5e6f" }, "output_stream_url": format!("http://localhost/streams/{id}"),
        "release": if status == "succeeded" { json!({ "id": "release-3" }) } else { Value::Null },
    })
}

/// A session with one app, `my-app`.
fn session() -> Session {
    let api = FakeApi::start();
    api.json("GET /apps/my-app", app("my-app"))
        .json("GET /account", json!({ "id": "1", "email": "admin@localhost" }))
        .json("GET /apps/my-app/releases", json!([release(3, "Deploy 1a2b3c4d", "succeeded", true)]));
    Session::new(api)
}

#[test]
fn apps() {
    let mut session = session();
    session
        .api
        .json("POST /apps", app("my-app"))
        .json("PATCH /apps/my-app", app("new-name"))
        .json("DELETE /apps/my-app", app("my-app"))
        .json("GET /apps/my-app/dynos", json!([dyno("web.1", "up", "a"), dyno("web.2", "up", "a")]))
        .on("GET /users/~/apps", Answer::Pages(vec![json!([app("zebra")]), json!([app("my-app")])]));
    session
        .run("hokku create my-app")
        .run("hokku create 2>/dev/null")
        .run("hokku apps")
        .run("hokku apps --json | grep '\"name\": \"[mz]'")
        .run("hokku apps:info -a my-app")
        .run("hokku info -a my-app --shell")
        .run("hokku apps:rename new-name -a my-app")
        .run("hokku apps:destroy -a my-app")
        .run("hokku apps:destroy my-app --confirm other")
        .run("hokku apps:destroy my-app --confirm my-app");
    session.api.json("GET /users/~/apps", json!([]));
    session.run("hokku apps");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn git_remotes_choose_the_app() {
    let mut session = session();
    session.quietly("git init -q -b main repo");
    session
        .api
        .json("POST /apps", app("my-app"))
        .json("GET /apps/other", app("other"))
        .json("PATCH /apps/my-app", app("renamed"))
        .json("GET /apps/renamed/config-vars", json!({ "A": "1" }))
        .json("DELETE /apps/other", app("other"))
        .json("GET /apps/my-app/config-vars", json!({ "A": "1" }));
    session
        .run("cd repo && hokku config")
        .run("cd repo && hokku create my-app")
        .run("cd repo && git config --local --list | grep -E 'remote|credential'")
        .run("cd repo && hokku config:get A")
        .run("cd repo && hokku git:remote -a other -r staging")
        .run("cd repo && hokku config:get A")
        .run("cd repo && hokku config:get A -r hokku")
        .run("cd repo && hokku config:get A -r nowhere")
        .run("cd repo && HOKKU_APP=my-app hokku config:get A")
        .run("cd repo && hokku apps:destroy -r staging --confirm other")
        .run("cd repo && hokku apps:rename renamed")
        .run("cd repo && hokku config:get A")
        .run("hokku git:remote -a my-app")
        .run("hokku git:remote -a missing");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn git_gets_its_token_for_this_server_only() {
    let mut session = session();
    session.api.json("POST /oauth/authorizations", json!({ "access_token": { "token": "made-by-the-server" } }));
    let (address, root) = (session.api.address, session.api.root.path().display().to_string());
    let ask = |host: &str, rest: &str| format!("printf 'protocol=http\\nhost={host}\\n\\n' | {rest}");
    let (here, there) = (address.to_string(), format!("localhost:{}", address.port()));
    session
        .run(&ask(&here, &format!("hokku git:credentials --root {root} get")))
        .run(&ask(&there, &format!("hokku git:credentials --root {root} get")))
        .run(&ask("evil.example:80", &format!("hokku git:credentials --root {root} get")))
        .run(&ask(&here, "hokku git:credentials store"))
        .run(&ask(&here, "hokku git:credentials erase"))
        .run(&ask(&here, &format!("HOKKU_API_KEY={TOKEN} hokku git:credentials --host http://{address} get")))
        .run(&ask(&here, "hokku git:credentials --host http://elsewhere:1 get"))
        .run(&ask(&here, &format!("hokku git:credentials --host http://{address} get")));
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn git_itself_asks_the_helper_that_git_remote_wrote() {
    let session = session();
    session.api.json("POST /oauth/authorizations", json!({ "access_token": { "token": "made-by-the-server" } }));
    let line = format!(
        "git init -q . && hokku git:remote -a my-app && unset HOKKU_ROOT && \
         printf 'protocol=http\\nhost={}\\n\\n' | git credential fill",
        session.api.address
    );
    let output = session.command("sh").args(["-c", &line]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("username=hokku\npassword=made-by-the-server\n"), "{text:?}");
}

#[test]
fn config_vars() {
    let mut session = session();
    let vars = json!({ "A": "1", "LONG_NAME": "two words", "QUOTE": "it's" });
    session
        .api
        .json("GET /apps/my-app/config-vars", vars.clone())
        .json("PATCH /apps/my-app/config-vars", vars)
        .json("GET /apps/empty/config-vars", json!({}));
    session
        .run("hokku config -a my-app")
        .run("hokku config -a my-app --shell")
        .run("hokku config -a my-app --json")
        .run("hokku config -a empty")
        .run("hokku config:get LONG_NAME -a my-app")
        .run("hokku config:get A MISSING -a my-app")
        .run("hokku config:get QUOTE -a my-app --shell")
        .run("hokku config:set A=1 'LONG_NAME=two words' -a my-app");
    let (was, made) = (release(3, "Deploy 1a2b3c4d", "succeeded", true), release(4, "Set A", "pending", false));
    let newest = Answer::Turns(vec![json!([was]), json!([made])]);
    let settled = |status| vec![made.clone(), release(4, "Set A", status, true)];
    session.api.on("GET /apps/my-app/releases", newest.clone());
    session.api.on("GET /apps/my-app/releases/4", Answer::Turns(settled("succeeded")));
    session.run("hokku config:unset A B -a my-app");
    session.api.on("GET /apps/my-app/releases", newest);
    let mut failed = settled("failed");
    failed[1]["failure_message"] = json!("web.1 crashed 3 times while it started");
    session.api.on("GET /apps/my-app/releases/4", Answer::Turns(failed));
    session
        .run("hokku config:unset A B -a my-app")
        .run("hokku config:set NOVALUE -a my-app")
        .run("hokku config:set -a my-app");
    session.api.error(
        "PATCH /apps/my-app/config-vars",
        422,
        json!({ "id": "invalid_params", "message": "\"1A\" is not a valid config var name" }),
    );
    session.run("hokku config:set 1A=b -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn dynos() {
    let mut session = session();
    let formation = json!([
        { "type": "web", "quantity": 2, "size": "Basic" }, { "type": "worker", "quantity": 0, "size": "Standard-1X" },
    ]);
    session
        .api
        .json(
            "GET /apps/my-app/dynos",
            json!([
                dyno("worker.1", "crashed", "python work.py"),
                dyno("web.10", "starting", "node server.js"),
                dyno("web.2", "up", "node server.js"),
                dyno("run.4821", "up", "bash"),
            ]),
        )
        .json("GET /apps/empty/dynos", json!([]))
        .json("GET /apps/my-app/formation", formation.clone())
        .json("GET /apps/empty/formation", json!([]))
        .json("PATCH /apps/my-app/formation", formation)
        .json("DELETE /apps/my-app/dynos", json!({}))
        .json("DELETE /apps/my-app/dynos/web.1", json!({}))
        .json("DELETE /apps/my-app/formations/worker", json!({}))
        .json("POST /apps/my-app/dynos/run.4821/actions/stop", json!({}))
        .json("POST /apps/my-app/formations/run/actions/stop", json!({}));
    session
        .run("hokku ps -a my-app")
        .run("hokku ps worker -a my-app")
        .run("hokku ps clock -a my-app")
        .run("hokku ps --json web -a my-app | grep name")
        .run("hokku ps -a empty")
        .run("hokku ps:scale web=1 worker=1 web=2 -a my-app")
        .run("hokku ps:scale -a my-app")
        .run("hokku ps:scale -a empty")
        .run("hokku ps:scale web=2 worker-1:standard-1x -a my-app")
        .run("hokku scale web=two -a my-app")
        .run("hokku ps:restart -a my-app")
        .run("hokku restart web.1 -a my-app")
        .run("hokku ps:restart worker -a my-app")
        .run("hokku ps:stop run.4821 -a my-app")
        .run("hokku ps:stop -p run -a my-app")
        .run("hokku ps:stop -a my-app");
    session.api.error(
        "DELETE /apps/my-app/dynos/web.9",
        404,
        json!({ "id": "not_found", "resource": "dyno", "message": "Couldn't find that dyno." }),
    );
    session.run("hokku ps:restart -d web.9 -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn releases() {
    let mut session = session();
    session
        .api
        .json(
            "GET /apps/my-app/releases",
            json!([
                release(6, "Set A config vars", "pending", false),
                release(5, "Deploy 5e6f7a8b", "failed", false),
                release(4, "Set ONE, ANOTHER, A_THIRD, AND_THE_LAST_OF_THEM config vars", "succeeded", true),
                release(3, "Deploy 1a2b3c4d", "succeeded", false),
                release(2, "Enable Logplex", "succeeded", false),
            ]),
        )
        .json("GET /apps/my-app/releases/3", release(3, "Deploy 1a2b3c4d", "succeeded", false))
        .json("GET /apps/my-app/releases/3/config-vars", json!({ "A": "1", "LONG": "x y" }))
        .json("GET /apps/my-app/releases/6/config-vars", json!({ "A": "2" }))
        .json("POST /apps/my-app/releases", release(7, "Rollback to v3", "pending", false))
        .json("GET /apps/my-app/releases/7", release(7, "Rollback to v3", "succeeded", true))
        .json("GET /apps/my-app/releases/8", release(8, "Rollback to v3", "succeeded", true));
    session
        .run("hokku releases -a my-app")
        .run("hokku releases -n 2 --json -a my-app | grep -c '\"version\"'")
        .run("hokku releases:info v3 -a my-app")
        .run("hokku releases:info -a my-app")
        .run("hokku releases:info 3 --shell -a my-app")
        .run("hokku rollback -a my-app")
        .run("hokku rollback v3 -a my-app")
        .run("hokku rollback latest -a my-app");
    session.api.error(
        "GET /apps/my-app/releases/99",
        404,
        json!({ "id": "not_found", "resource": "release", "message": "Couldn't find that release." }),
    );
    session.run("hokku rollback v99 -a my-app");
    let with_phase = {
        let mut made = release(8, "Rollback to v3", "pending", false);
        made["output_stream_url"] = json!("http://localhost/streams/phase");
        made
    };
    session.api.json("POST /apps/my-app/releases", with_phase).on("GET /streams/phase", Answer::Text("migrated\n"));
    session.run("hokku rollback v3 -a my-app");
    session.api.json("GET /apps/my-app/releases", json!([release(1, "Initial release", "succeeded", true)]));
    session.run("hokku rollback -a my-app");
    insta::assert_snapshot!(session.transcript());
}

fn with_builds(api: &FakeApi) {
    api.json(
        "POST /sources",
        json!({ "source_blob": {
            "get_url": "http://localhost/sources/s3cret", "put_url": "http://localhost/sources/s3cret",
        } }),
    )
    .on("PUT /sources/s3cret", Answer::Upload)
    .json("POST /apps/my-app/builds", build("b1", "pending"))
    .json("POST /apps/my-app/builds/actions/rebuild", build("b1", "pending"))
    .on("GET /streams/b1", Answer::Text("-----> Node.js app detected\n       Released v3\n"))
    .json("GET /apps/my-app/builds/b1", build("b1", "succeeded"))
    .json("GET /apps/my-app/releases/release-3", release(3, "Deploy", "succeeded", true));
}

#[test]
fn deploying_a_directory() {
    let mut session = session();
    with_builds(&session.api);
    session.quietly("mkdir site && echo hello > site/index.html && echo '*.log' > site/.gitignore && touch site/a.log");
    session.run("hokku deploy site -a my-app --version 1a2b3c4d5e6f -b heroku/nodejs");
    let upload = session.api.uploads().remove(0);
    let mut names: Vec<_> = tar::Archive::new(zstd::Decoder::new(&upload[..]).unwrap())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["source/.gitignore", "source/index.html"]);

    session.run("printf 'an archive' | hokku deploy - -a my-app");
    assert_eq!(session.api.uploads(), ["an archive"]);
    session
        .run("hokku rebuild -a my-app")
        .run("hokku deploy missing -a my-app")
        .run("hokku deploy site/index.html -a my-app")
        .run("mkdir -p empty && hokku deploy empty -a my-app")
        .run("hokku deploy - -a my-app < /dev/null")
        .run("hokku deploy site -a unknown");
    session.api.json("GET /apps/my-app/builds/b1", build("b1", "failed"));
    session.run("hokku rebuild -a my-app");
    session
        .api
        .json("GET /apps/my-app/builds/b1", build("b1", "succeeded"))
        .json("GET /apps/my-app/releases/release-3", release(3, "Deploy", "failed", false));
    session.run("hokku rebuild -a my-app");
    session.api.error(
        "PUT /sources/s3cret",
        422,
        json!({ "id": "invalid_params", "message": "The source is larger than 1 GiB." }),
    );
    session.run("printf 'an archive' | hokku deploy - -a my-app");
    // Both differ from run to run with the files' times.
    insta::with_settings!({ filters => vec![("SHA256:[0-9a-f]{64}", "SHA256:…"), (r"done, \d+ B", "done, N B")] }, {
        insta::assert_snapshot!(session.transcript());
    });
}

#[test]
fn ctrl_c_cancels_the_build() {
    let session = session();
    with_builds(&session.api);
    session
        .api
        .on("GET /streams/b1", Answer::Endless("-----> Building\n"))
        .json("DELETE /apps/my-app/builds/b1", build("b1", "failed"));
    let mut command = session.command(env!("CARGO_BIN_EXE_hokku"));
    command.args(["rebuild", "-a", "my-app"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "-----> Building\n");
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "\nBuild cancelled.\n");
    assert!(session.api.has_asked("DELETE /apps/my-app/builds/b1"));
}

fn interrupt(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn builds() {
    let mut session = session();
    with_builds(&session.api);
    session
        .api
        .json("GET /apps/my-app/builds", json!([build("b0", "succeeded"), build("b1", "pending")]))
        .json("DELETE /apps/my-app/builds/b1", build("b1", "failed"))
        .json("GET /apps/empty/builds", json!([]))
        .json("DELETE /apps/my-app/build-cache", json!({}));
    session
        .run("hokku builds -a my-app")
        .run("hokku builds --json -n 1 -a my-app | grep '\"id\": \"b'")
        .run("hokku builds -a empty")
        .run("hokku builds:output b1 -a my-app")
        .run("hokku builds:output -a empty")
        .run("hokku builds:cancel -a my-app")
        .run("hokku builds:cancel -a empty")
        .run("hokku builds:cache:purge -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn buildpacks() {
    let mut session = session();
    let rows = |urls: &[&str]| -> Value {
        let row = |(n, url): (usize, &&str)| json!({ "ordinal": n, "buildpack": { "url": url, "name": url } });
        urls.iter().enumerate().map(row).collect()
    };
    let list = "GET /apps/my-app/buildpack-installations";
    let put = "PUT /apps/my-app/buildpack-installations";
    session.api.json(list, json!([])).json(put, rows(&["heroku/python"]));
    session.run("hokku buildpacks -a my-app").run("hokku buildpacks:set heroku/python -a my-app");
    session.api.json(list, rows(&["heroku/python"])).json(put, rows(&["urn:buildpack:heroku/nodejs", "heroku/python"]));
    session
        .run("hokku buildpacks -a my-app")
        .run("hokku buildpacks:add -i 1 heroku/nodejs -a my-app")
        .run("hokku buildpacks:add heroku/python -a my-app");
    session.api.json(list, rows(&["heroku/nodejs", "heroku/python"])).json(put, json!([]));
    session
        .run("hokku buildpacks -a my-app")
        .run("hokku buildpacks --json -a my-app | grep ordinal")
        .run("hokku buildpacks:set heroku/ruby -a my-app")
        .run("hokku buildpacks:set -i 2 heroku/ruby -a my-app")
        .run("hokku buildpacks:remove heroku/ruby -a my-app")
        .run("hokku buildpacks:remove -i 1 -a my-app")
        .run("hokku buildpacks:remove -a my-app")
        .run("hokku buildpacks:clear -a my-app");
    let row = |name: &str, description: &str| json!({ "namespace": "heroku", "name": name, "category": "languages", "description": description });
    let (ruby, readme) = (row("ruby", "Ruby"), json!({ "encoding": "base64", "content": "V2hhdCBpdCBpcyBmb3I=" }));
    let versions = json!([{ "release": "1.2.3", "status": "published", "license": "MIT", "created_at": null }]);
    let missing = json!({ "id": "not_found", "message": "Couldn't find that buildpack.", "resource": "buildpack" });
    let api =
        session.api.json("GET /buildpacks", json!([ruby, row("go", "Go")])).json("GET /buildpacks/heroku%2Fruby", ruby);
    api.json("GET /buildpacks/heroku%2Fruby/revisions", versions).json("GET /buildpacks/heroku%2Fruby/readme", readme);
    api.error("GET /buildpacks/heroku%2Fcobol", 404, missing);
    session
        .run("hokku buildpacks:search")
        .run("hokku buildpacks:search rub")
        .run("hokku buildpacks:search cobol")
        .run("hokku buildpacks:info heroku/ruby")
        .run("hokku buildpacks:info heroku/ruby --json | grep readme")
        .run("hokku buildpacks:info heroku/cobol")
        .run("hokku buildpacks:versions heroku/ruby");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn maintenance() {
    let mut session = session();
    session.api.json("PATCH /apps/my-app", app("my-app"));
    session
        .run("hokku maintenance -a my-app")
        .run("hokku maintenance:on -a my-app")
        .run("hokku maintenance:off -a my-app");
    insta::assert_snapshot!(session.transcript());
}

const LOG: &str = "2026-01-02T03:04:05.000000+00:00 app[web.1]: hello\n\
                   2026-01-02T03:04:06.000000+00:00 heroku[router]: at=info status=200\n";

#[test]
fn logs() {
    let mut session = session();
    session
        .api
        .json("POST /apps/my-app/log-sessions", json!({ "logplex_url": "http://localhost/logs/s3cret" }))
        .on("GET /logs/s3cret", Answer::Text(LOG));
    session
        .run("hokku logs -a my-app")
        .run("hokku logs -n 5 --dyno web.1 --source app -a my-app")
        .run("hokku logs --json -a my-app | head -2")
        .run("hokku logs -p web -a my-app | head -1")
        .run("hokku logs --tail -a my-app")
        .run("hokku logs -n 9999 -a my-app")
        .run("hokku logs --source other -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut session = session();
    // More than a pipe holds, so that writing on must fail once head has gone.
    let long = Box::leak(LOG.repeat(3000).into_boxed_str());
    session
        .api
        .json("POST /apps/my-app/log-sessions", json!({ "logplex_url": "http://localhost/logs/s3cret" }))
        .on("GET /logs/s3cret", Answer::Text(long));
    session.run("{ hokku logs -a my-app; echo status $? >&2; } | head -1");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn running_with_pipes() {
    let mut session = session();
    let program = |session: &Session, program| {
        session
            .api
            .json("POST /apps/my-app/dynos", json!({ "name": "run.4821", "attach_url": "http://localhost/attach/x" }))
            .on("GET /attach/x", Answer::Attach(program));
    };
    program(&session, Program::Cat);
    session
        .run("printf 'one\\ntwo' | hokku run -a my-app cat")
        .run("head -c 300000 /dev/zero | hokku run -a my-app -- cat -u | wc -c");
    program(&session, Program::Exit7);
    session
        .run("hokku run -x -a my-app sh -c 'exit 7'")
        .run("hokku run -e 'A=1;B=2' -e C=3 -s standard-2x 'exit 7' -a my-app")
        .run("hokku run -a my-app");
    program(&session, Program::Error);
    session.run("hokku run -x -a my-app bash");
    program(&session, Program::Lost);
    session.run("hokku run -x -a my-app bash");
    session.api.error(
        "POST /apps/my-app/dynos",
        422,
        json!({ "id": "invalid_params", "message": "my-app has no code yet; deploy something first." }),
    );
    session.run("hokku run bash -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn without_a_terminal_signals_go_to_the_dyno() {
    let session = session();
    session
        .api
        .json("POST /apps/my-app/dynos", json!({ "name": "run.4821", "attach_url": "http://localhost/attach/x" }))
        .on("GET /attach/x", Answer::Attach(Program::Signal));
    let mut command = session.command(env!("CARGO_BIN_EXE_hokku"));
    let mut child = command.args(["run", "-x", "-a", "my-app", "sleep", "9"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn detached() {
    let mut session = session();
    session
        .api
        .json("POST /apps/my-app/dynos", json!({ "name": "run.77", "attach_url": null }))
        .json("POST /apps/my-app/log-sessions", json!({ "logplex_url": "http://localhost/logs/s3cret" }))
        .on("GET /logs/s3cret", Answer::Text(LOG));
    session
        .run("hokku run:detached python import.py --all -a my-app")
        .run("hokku run:detached --tail -a my-app python import.py");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn on_a_terminal_every_key_and_window_size_goes_through_and_it_is_given_back() {
    let session = session();
    session
        .api
        .json("POST /apps/my-app/dynos", json!({ "name": "run.4821", "attach_url": "http://localhost/attach/x" }))
        .on("GET /attach/x", Answer::Attach(Program::Keys));
    let mut terminal = Terminal::open(100, 40);
    let before = terminal.settings();
    let mut child = terminal.spawn(session.command("setsid"), "run -x -a my-app bash");
    terminal.wait_for("100x40\r\n");
    assert_ne!(terminal.settings(), before, "the terminal is raw");
    terminal.resize(91, 31);
    terminal.wait_for("91x31\r\n");
    terminal.type_keys("\x03");
    terminal.wait_for("[3]\r\n");
    terminal.type_keys("\x1a");
    terminal.wait_for("[26]\r\n");
    terminal.type_keys("q");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(terminal.settings(), before, "the terminal is as it was");
    let asked = session.api.asked().join("\n");
    assert!(asked.contains(r#""TERM":"xterm","COLUMNS":100,"LINES":40"#), "{asked}");
    assert!(asked.contains(r#""tty":true"#), "{asked}");
}

#[test]
fn a_dyno_that_does_not_listen_is_left_by_four_interrupts() {
    let session = session();
    session
        .api
        .json("POST /apps/my-app/dynos", json!({ "name": "run.4821", "attach_url": "http://localhost/attach/x" }))
        .on("GET /attach/x", Answer::Attach(Program::Keys));
    let mut terminal = Terminal::open(80, 24);
    let before = terminal.settings();
    let mut child = terminal.spawn(session.command("setsid"), "run -a my-app bash");
    terminal.wait_for("80x24\r\n");
    terminal.type_keys("\x03\x03\x03\x03");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_terminal_gets_colours_unless_no_color_says_otherwise() {
    let session = session();
    session
        .api
        .json("POST /apps/my-app/log-sessions", json!({ "logplex_url": "http://localhost/logs/s3cret" }))
        .on("GET /logs/s3cret", Answer::Text(LOG));
    let shown = |variable: &str, value: &str| {
        let mut terminal = Terminal::open(80, 24);
        let mut command = session.command("setsid");
        command.env(variable, value);
        let mut child = terminal.spawn(command, "logs -a my-app");
        terminal.wait_for("status=200\r\n");
        assert!(child.wait().unwrap().success());
        terminal.seen()
    };
    assert!(shown("X", "").starts_with("\x1b[36m2026-01-02T03:04:05.000000+00:00 app[web.1]:\x1b[0m hello\r\n"));
    assert_eq!(shown("NO_COLOR", "1"), LOG.replace('\n', "\r\n"));
    assert_eq!(shown("TERM", "dumb"), LOG.replace('\n', "\r\n"));
}

#[test]
fn authorizations() {
    let mut session = session();
    let row = |token: Option<&str>| {
        json!({
            "id": "0193b6a0", "description": "ci", "scope": ["read", "write"], "updated_at": "2026-11-22T17:02:45Z",
            "access_token": { "token": token, "expires_in": 3600 },
        })
    };
    session.api.json("GET /oauth/authorizations", json!([row(None)]));
    session.api.json("GET /oauth/authorizations/0193b6a0", row(None));
    session.api.json("POST /oauth/authorizations", row(Some("made-by-the-server")));
    session.api.json("POST /oauth/authorizations/0193b6a0/actions/regenerate-tokens", row(Some("another")));
    session.api.json("PATCH /oauth/authorizations/0193b6a0", row(None));
    session.api.json("DELETE /oauth/authorizations/0193b6a0", row(None));
    session
        .run("hokku authorizations")
        .run("hokku authorizations:create -d ci -s read,write -e 3600")
        .run("hokku authorizations:create --short")
        .run("hokku authorizations:info 0193b6a0")
        .run("hokku authorizations:rotate 0193b6a0")
        .run("hokku authorizations:update 0193b6a0 -d ci")
        .run("hokku authorizations:revoke 0193b6a0");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn tokens_and_environment() {
    let mut session = session();
    session.api.json("POST /oauth/authorizations", json!({ "access_token": { "token": "made-by-the-server" } }));
    let host = format!("http://{}", session.api.address);
    session
        .run("hokku auth:token")
        .run("hokku auth:token --days 1 --description ci --json 2>/dev/null")
        .run("hokku auth:token --days 0")
        .run("hokku auth:whoami")
        .run("hokku whoami --json")
        .run("hokku env")
        .run("hokku env --json")
        .run(&format!("HOKKU_API_KEY={TOKEN} HOKKU_HOST={host} hokku env | head -2"))
        .run(&format!("HOKKU_API_KEY={TOKEN} HOKKU_HOST={host} hokku auth:token"))
        .run(&format!("HOKKU_API_KEY={TOKEN} hokku auth:whoami --host {host}"))
        .run(&format!("HOKKU_API_KEY=wrong hokku auth:whoami --host {host}"))
        .run(&format!("hokku auth:whoami --host {host}"));
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn the_server_is_found_or_its_absence_explained() {
    let mut session = session();
    session.quietly("mkdir stale broken && echo '{\"run\":\"/nowhere/at-all\"}' > stale/instance.json && echo x > broken/instance.json");
    session
        .run("hokku apps --root /nowhere/at-all")
        .run("hokku apps --root stale")
        .run("hokku apps --root broken")
        .run("hokku env --root stale")
        .run("HOKKU_API_KEY=x hokku apps --host http://127.0.0.1:1")
        .run("HOKKU_API_KEY=x HOKKU_HOST=nonsense:port hokku apps")
        .run("HOKKU_API_KEY=x hokku apps --host https://127.0.0.1:1")
        .run("HOKKU_API_KEY=\"$(printf 'a\\tb\\001')\" hokku apps --host http://127.0.0.1:1")
        .run("hokku apps --host http://127.0.0.1:1 --root x")
        .run("hokku config -a missing")
        .run("hokku config -a '../x y'");
    session.api.error("GET /users/~/apps", 500, json!("no error body at all"));
    session.run("hokku apps");
    session.api.json("GET /users/~/apps", json!({ "not": "a list" }));
    session.run("hokku apps");
    session.api.error(
        "GET /users/~/apps",
        503,
        json!({ "id": "maintenance", "message": "The box is \u{1b}[31mbusy", "url": "http://localhost/status" }),
    );
    session.run("hokku apps");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn wrong_usage_is_told_with_status_2() {
    let mut session = session();
    session
        .run("hokku nonsense")
        .run("hokku app:info")
        .run("hokku config --nonsense")
        .run("hokku ps")
        .run("hokku help nonsense")
        .run("hokku server --api nonsense")
        .run("hokku server --name Bad/Name")
        .run("hokku man nonsense");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn sizes_and_waiting_for_dynos() {
    let mut session = session();
    let row = |kind: &str, size: &str| json!({ "type": kind, "quantity": 1, "size": size, "command": "x" });
    session.api.json("GET /apps/my-app/formation", json!([row("web", "Basic"), row("worker", "Basic")]));
    session.run("hokku ps:type -a my-app");
    session.api.json("PATCH /apps/my-app/formation", json!([row("web", "Standard-2X"), row("worker", "Basic")]));
    session.run("hokku ps:type web=standard-2x -a my-app").run("hokku ps:type eco -a my-app");
    session.run("hokku ps:type web= -a my-app");
    let dynos = json!([dyno("web.1", "up", "x"), dyno("run.1", "starting", "x")]);
    session.api.json("GET /apps/my-app/dynos", dynos);
    session.api.json("GET /apps/my-app/releases", json!([release(3, "Deploy", "succeeded", true)]));
    session.api.json("GET /apps/my-app/releases/3", release(3, "Deploy", "succeeded", true));
    session.run("hokku ps:wait -a my-app");
    session.api.json("GET /apps/my-app/releases/3", release(3, "Deploy", "failed", false));
    session.run("hokku ps:wait -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn config_vars_in_an_editor() {
    let mut session = session();
    session.api.json("GET /apps/my-app/config-vars", json!({ "A": "it's", "B": "two", "C": "stays" }));
    session.api.json("PATCH /apps/my-app/config-vars", json!({}));
    session.api.json("GET /apps/my-app/releases", json!([release(3, "Deploy", "succeeded", true)]));
    session.quietly(
        "printf 'cat $1; ls -l $1 | cut -c1-10; grep -v ^B= $1 > x; echo D=\"new one\" >> x; mv x $1' > editor",
    );
    session.run("EDITOR='sh editor' hokku config:edit -a my-app");
    session.run("EDITOR=true hokku config:edit -a my-app");
    session.run("EDITOR='printf other >' hokku config:edit B -a my-app");
    session.run("EDITOR='echo nonsense >' hokku config:edit -a my-app");
    session.run("EDITOR=false hokku config:edit -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn what_a_release_said_and_its_retry() {
    let mut session = session();
    let mut with_output = release(3, "Deploy 1a2b3c4d", "succeeded", true);
    with_output["output_stream_url"] = json!("http://box/streams/1/secret");
    with_output["slug"] = json!({ "id": "slug-1" });
    session.api.json("GET /apps/my-app/releases", json!([with_output]));
    session.api.on("GET /streams/1/secret", Answer::Text("migrated\n"));
    session.run("hokku releases:output -a my-app");
    session.api.json("GET /apps/my-app/releases/2", release(2, "Enable Logplex", "succeeded", false));
    session.run("hokku releases:output v2 -a my-app");
    let mut made = with_output.clone();
    made["version"] = json!(4);
    session.api.json("POST /apps/my-app/releases", made);
    session.run("hokku releases:retry -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn certificates() {
    let mut session = session();
    let cert = |name: &str, host: &str| {
        json!({
            "name": name, "domains": ["1"],
            "ssl_cert": {
                "cert_domains": [host], "subject": "/CN=shop", "issuer": "/O=Authority", "starts_at": THEN,
                "expires_at": THEN, "ca_signed?": false, "self_signed?": false,
            },
        })
    };
    let (one, two) = (cert("calm-lake-00001", "www.example.com"), cert("quiet-harbor-00002", "*.example.com"));
    let path = "GET /apps/my-app/sni-endpoints";
    session.api.json(path, json!([]));
    session.run("hokku certs -a my-app").run("hokku certs:info -a my-app");
    session.quietly("echo chain > crt; echo secret > key");
    session.api.json("POST /apps/my-app/sni-endpoints", one.clone());
    session.run("hokku certs:add crt key -a my-app").run("hokku certs:add crt missing -a my-app");
    session.api.json(path, json!([one]));
    session.run("hokku certs:info -a my-app");
    session.api.json("PATCH /apps/my-app/sni-endpoints/calm-lake-00001", two.clone());
    session.run("hokku certs:update crt key -a my-app");
    session.api.json(path, json!([one, two]));
    session.run("hokku certs -a my-app").run("hokku certs:remove -a my-app");
    session.api.json("GET /apps/my-app/sni-endpoints/quiet-harbor-00002", two.clone());
    session.api.json("DELETE /apps/my-app/sni-endpoints/quiet-harbor-00002", two);
    session.run("hokku certs:remove --name quiet-harbor-00002 -a my-app").run("hokku help certs:add");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn domains() {
    let mut session = session();
    let own = json!({ "hostname": "my-app.localhost", "kind": "heroku", "cname": null });
    let added = json!({ "hostname": "www.example.com", "kind": "custom", "cname": "my-app.localhost" });
    session.api.json("GET /apps/my-app/domains", json!([own]));
    session.run("hokku domains -a my-app");
    session.api.json("POST /apps/my-app/domains", added.clone());
    session.api.json("DELETE /apps/my-app/domains/www.example.com", added.clone());
    session.api.json("GET /apps/my-app/domains", json!([own, added]));
    session.run("hokku domains:add www.example.com -a my-app").run("hokku domains -a my-app");
    session.run("hokku domains:remove www.example.com -a my-app").run("hokku domains:clear -a my-app");
    let taken = json!({ "id": "invalid_params", "message": "www.example.com is in use by another app." });
    session.api.error("POST /apps/my-app/domains", 422, taken);
    session.run("hokku domains:add www.example.com -a my-app").run("hokku help domains:add");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn drains() {
    let mut session = session();
    session.api.json("GET /apps/my-app/log-drains", json!([]));
    session.run("hokku drains -a my-app");
    let (url, token) = ("syslog+tls://logs.example.com:6514", "d.9173ea1f-6f14-4976-9cf0-7cd0dafdcdbc");
    let drain = json!({ "url": url, "token": token });
    session.api.json("POST /apps/my-app/log-drains", drain.clone());
    session.api.json("GET /apps/my-app/log-drains", json!([drain]));
    session.api.json("DELETE /apps/my-app/log-drains/syslog%2Btls%3A%2F%2Flogs.example.com%3A6514", drain);
    session.run(&format!("hokku drains:add {url} -a my-app")).run("hokku drains -a my-app");
    session.run(&format!("hokku drains:remove {url} -a my-app")).run("hokku help drains:add");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn egress() {
    let mut session = session();
    let answer = |mode: &str, allow: &[&str]| json!({ "app": { "name": "my-app" }, "mode": mode, "allow": allow });
    let path = "PATCH /apps/my-app/egress";
    session.api.json("GET /apps/my-app/egress", answer("internet", &[]));
    session.run("hokku egress -a my-app").run("hokku egress -a my-app --json");
    session.api.json(path, answer("none", &[]));
    session.run("hokku egress:set none -a my-app");
    session.api.json(path, answer("allow", &["10.0.0.0/8", "tcp/443"]));
    session.api.json("GET /apps/my-app/egress", answer("allow", &["10.0.0.0/8", "tcp/443"]));
    session.run("hokku egress:set 10.0.0.0/8 tcp/443 -a my-app").run("hokku egress -a my-app");
    let wrong =
        json!({ "id": "invalid_params", "message": "10.1.2.3/8 has bits beyond its prefix; did you mean 10.0.0.0/8?" });
    session.api.error(path, 422, wrong);
    session.run("hokku egress:set 10.1.2.3/8 -a my-app").run("hokku egress:set").run("hokku help egress:set");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn access() {
    let mut session = session();
    let row = |email: &str, role: &str, permissions: &[&str]| {
        let permissions: Vec<Value> = permissions.iter().map(|name| json!({ "name": name })).collect();
        json!({ "user": { "email": email }, "role": role, "permissions": permissions })
    };
    let path = "/teams/apps/my-app/collaborators";
    let ann = row("ann@example.com", "collaborator", &["view", "deploy"]);
    session.api.json(
        &format!("GET {path}"),
        json!([ann, row("admin@localhost", "owner", &["view", "deploy", "operate", "manage"])]),
    );
    session.run("hokku access -a my-app").run("hokku access -a my-app --json");
    session.api.json(&format!("POST {path}"), ann.clone());
    session.run("hokku access:add ann@example.com -p deploy,view -a my-app").run("hokku access:add x -a my-app");
    session.api.json(&format!("PATCH {path}/ann%40example.com"), row("ann@example.com", "", &["view"]));
    session.run("hokku access:update ann@example.com -p view -a my-app").run("hokku access:update a@b -a my-app");
    session.api.json(&format!("DELETE {path}/ann%40example.com"), ann);
    session.run("hokku access:remove ann@example.com -a my-app");
    session.api.json(&format!("DELETE {path}/admin%40localhost"), json!({}));
    session.run("hokku apps:join -a my-app").run("hokku apps:leave -a my-app");
    session.api.json("PATCH /teams/apps/my-app", json!({}));
    session.run("hokku apps:lock -a my-app").run("hokku apps:unlock -a my-app");
    let transfer = json!({
        "app": { "name": "my-app" }, "owner": { "email": "admin@localhost" },
        "recipient": { "email": "ann@example.com" }, "state": "pending", "updated_at": THEN,
    });
    session.api.json("POST /account/app-transfers", transfer.clone());
    session.api.json("GET /account/app-transfers", json!([transfer]));
    session.api.json("PATCH /account/app-transfers/my-app", transfer);
    session.run("hokku apps:transfer ann@example.com -a my-app").run("hokku apps:transfers");
    session.run("hokku apps:transfers:accept my-app").run("hokku apps:transfers:decline my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn labs() {
    let mut session = session();
    let row = json!({ "name": "runtime-dyno-metadata", "enabled": true, "description": "Tells dynos" });
    session.api.json("GET /apps/my-app/features", json!([row]));
    session.api.json("PATCH /apps/my-app/features/runtime-dyno-metadata", row);
    session.run("hokku labs -a my-app").run("hokku labs:enable runtime-dyno-metadata -a my-app");
    session.run("hokku labs:disable runtime-dyno-metadata -a my-app");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn accounts_keys_and_the_audit_log() {
    let mut session = session();
    let account = json!({ "email": "ann@example.com", "admin": true, "has_password": true });
    session.api.json("GET /accounts", json!([{ "email": "admin@localhost", "admin": true }, account]));
    session.run("hokku users");
    session.api.json("POST /accounts", json!({ "email": "ann@example.com", "password": "made-up" }));
    session.run("hokku users:create ann@example.com");
    session.api.json("POST /accounts", account.clone());
    session.run("echo 'my own' | hokku users:create ann@example.com --admin --password-stdin");
    session.run("hokku users:create a@b --password-stdin </dev/null");
    session.api.json("PATCH /accounts/ann%40example.com", json!({ "password": "made-up" }));
    session.run("hokku users:update ann@example.com --no-admin").run("hokku users:update ann@example.com");
    session.run("hokku users:password ann@example.com");
    session.api.json("PATCH /account", account.clone());
    session.run("printf 'old\nnew\nnew\n' | hokku users:password");
    session.run("printf 'old\nnew\nother\n' | hokku users:password");
    session.api.json("DELETE /accounts/ann%40example.com", account);
    session.run("hokku users:remove ann@example.com");

    let key = json!({ "id": "key-1", "fingerprint": "SHA256:abc", "comment": "ann laptop" });
    session.api.json("GET /account/keys", json!([key])).json("POST /account/keys", key.clone());
    session.api.json("DELETE /account/keys/ann%20laptop", key.clone()).json("DELETE /account/keys/key-1", key);
    session.run("hokku keys").run("echo 'ssh-rsa AAAA me' >id.pub; hokku keys:add id.pub").run("hokku keys:add no.pub");
    session.run("hokku keys:remove 'ann laptop'").run("hokku keys:clear");

    let event = json!({
        "created_at": THEN, "actor": { "email": "ann@example.com" }, "action": "config-vars:update",
        "app": { "name": "my-app" }, "status": 200, "note": "Set A config vars", "origin": "192.0.2.7",
    });
    let unfinished = json!({
        "created_at": THEN, "actor": { "email": "ann@example.com" }, "action": "app:create", "app": null,
        "status": null, "note": null, "origin": "192.0.2.7",
    });
    session.api.json("GET /audit-events?max=50", json!([event, unfinished]));
    session.api.json("GET /apps/my-app/audit-events?max=2&user=ann%40example.com&action=config-vars", json!([event]));
    session.run("hokku audit").run("hokku audit -a my-app -n 2 --user ann@example.com --action config-vars");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn logging_in_prints_a_token_and_keeps_nothing() {
    let mut session = session();
    session.api.json("POST /oauth/authorizations", json!({ "access_token": { "token": "new-token" } }));
    session.run("printf 'ann@example.com\nsecret\n' | hokku auth:login");
    session.run("echo secret | hokku login --email ann@example.com");
    session.api.error("POST /oauth/authorizations", 401, json!({ "id": "unauthorized", "message": "No." }));
    session.run("echo wrong | hokku login --email ann@example.com");
    session.api.json("DELETE /oauth/authorizations/~", json!({}));
    session.run("hokku auth:logout").run("HOKKU_API_KEY= hokku auth:logout");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn help_is_the_manual() {
    let mut session = session();
    session
        .run("hokku")
        .run("hokku --help | head -3")
        .run("hokku help ps")
        .run("hokku help server")
        .run("hokku help down")
        .run("hokku run --help")
        .run("hokku version")
        .run("hokku --version");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn the_page_of_commands_is_current() {
    let session = session();
    let page = String::from_utf8(session.quietly("hokku help --markdown").stdout).unwrap();
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    assert!(page.contains("### ps:scale") && page.contains("### addons:create"));
    // Whole pages side by side would not be read.
    let wrong = page.lines().zip(kept.lines()).find(|(new, old)| new != old);
    assert!(page == kept, "docs/cli.md is old: hokku help --markdown > docs/cli.md\n{wrong:?}");
}

#[test]
fn manual_pages_and_completions_are_complete() {
    let session = session();
    assert!(session.quietly("mkdir man && hokku man --dir man").status.success());
    let pages = std::fs::read_dir(session.dir.path().join("man")).unwrap().count();
    assert!(pages > 40, "{pages}");
    let page = String::from_utf8(session.quietly("hokku man ps:scale").stdout).unwrap();
    assert!(page.contains(".TH hokku-ps-scale 1") && page.contains("Examples:"), "{page}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(session.quietly(&format!("hokku completions {shell}")).stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn bash_completes_names_with_colons() {
    let session = session();
    let script = "eval \"$(hokku completions bash)\"; COMP_WORDS=(hokku apps:in); COMP_CWORD=1; \
                  _hokku hokku apps:in hokku; echo \"${COMPREPLY[@]}\"";
    let output = session.command("bash").args(["-c", script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "apps:info\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_box_is_examined() {
    let session = session();
    let output = session.quietly("hokku doctor --json");
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let missing = checks.iter().any(|check| check["status"] == "missing");
    assert_eq!(output.status.code(), Some(i32::from(missing)));
}

/// How long a terminal may take to show what it must.
const DEADLINE: Duration = Duration::from_secs(20);

/// Polls until `done`, or fails.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_tail_goes_on_until_it_is_interrupted() {
    let session = session();
    session
        .api
        .json("POST /apps/my-app/log-sessions", json!({ "logplex_url": "http://localhost/logs/s3cret" }))
        .on("GET /logs/s3cret", Answer::Endless(LOG));
    let mut command = session.command(env!("CARGO_BIN_EXE_hokku"));
    let mut child = command.args(["logs", "--tail", "-a", "my-app"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = vec![0; LOG.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut shown).unwrap();
    assert_eq!(String::from_utf8(shown).unwrap(), LOG);
    eventually("the session was asked for", || session.api.has_asked("POST /apps/my-app/log-sessions"));
    assert!(child.try_wait().unwrap().is_none());
    interrupt(child.id());
    assert!(!child.wait().unwrap().success());
}
