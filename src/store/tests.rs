//! What the store promises, tried on real files.
#![forbid(unsafe_code)]

use super::*;
use crate::domain::access::Caller;
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppName};
use crate::domain::build::{Build, BuildId, BuildStatus};
use crate::domain::config_vars::ConfigVars;
use crate::domain::dyno::DynoName;
use crate::domain::egress::Egress;
use crate::domain::formation::{Formation, Scale};
use crate::domain::procfile::ProcessType;
use crate::domain::release::{Change, History, Release, ReleaseId, ReleaseStatus};
use crate::domain::scope::Scopes;
use crate::domain::slug::{Digest, Slug, SlugId};
use crate::domain::stack::{Language, StackName};
use jiff::Timestamp;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::slice;
use tempfile::TempDir;
use uuid::Uuid;

pub(super) fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(super) fn write<T: Send + 'static>(
    store: &Store,
    f: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    run(store.write(f)).unwrap()
}

fn read<T: Send + 'static>(store: &Store, f: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static) -> T {
    run(store.read(f)).unwrap()
}

pub(super) fn new_app(tx: &Tx<'_>, name: &str) -> Result<App, StoreError> {
    let now = Timestamp::now();
    let app = App {
        id: AppId(Uuid::new_v4()),
        name: AppName::parse(name).unwrap(),
        owner: accounts::admin(tx)?.actor(),
        stack: StackName::Host,
        stack_chosen: false,
        maintenance: false,
        locked: false,
        created_at: now,
        updated_at: now,
        released_at: None,
    };
    apps::insert(tx, &app)?;
    Ok(app)
}

fn new_release(tx: &Tx<'_>, app: AppId, change: &Change<'_>) -> Result<Release, StoreError> {
    let actor: Actor = accounts::admin(tx)?.actor();
    let (newest, standing) = (releases::newest(tx, app)?, releases::standing(tx, app)?);
    let history = History { newest: newest.as_ref(), standing: standing.as_ref() };
    let release = Release::next(ReleaseId(Uuid::new_v4()), app, history, change, actor, Timestamp::now())
        .expect("a valid change");
    releases::insert(tx, &release)?;
    Ok(release)
}

fn new_slug(tx: &Tx<'_>, app: AppId, digest: u8) -> Result<Slug, StoreError> {
    let slug = Slug {
        id: SlugId(Uuid::new_v4()),
        app,
        digest: Digest::of([digest; 32]),
        size: 123,
        commit: Some("abc".into()),
        commit_description: Some("a b c".into()),
        checksum: Some(Digest::of([digest + 1; 32])),
        stack: "host-debian-12".into(),
        languages: vec![Language::Nodejs],
        process_types: [(ProcessType::web(), "node server.js".to_owned())].into(),
        buildpack_description: Some("Node.js".into()),
        created_at: Timestamp::now(),
    };
    slugs::insert(tx, &slug)?;
    Ok(slug)
}

fn config(key: &str, value: &str) -> crate::domain::config_vars::ConfigPatch {
    [(key.to_owned(), Some(value.to_owned()))].into()
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    let (app, slug, first, second, build) = write(&store, |tx| {
        let app = new_app(tx, "quiet-frog")?;
        let first = new_release(tx, app.id, &Change::Initial)?;
        let slug = new_slug(tx, app.id, 7)?;
        let second = new_release(tx, app.id, &Change::Slug { slug: slug.id, description: None })?;
        let build = Build {
            id: BuildId(Uuid::new_v4()),
            app: app.id,
            actor: app.owner.clone(),
            status: BuildStatus::Pending,
            source_version: Some("abc".into()),
            buildpacks: vec!["heroku/nodejs".into()],
            stack: "host".into(),
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
        };
        builds::insert(tx, &build)?;
        Ok((app, slug, first, second, build))
    });
    drop(store);
    let store = Store::open(root.path()).unwrap();
    read(&store, move |tx| {
        assert_eq!(apps::list(tx)?, slice::from_ref(&app));
        assert_eq!(apps::find(tx, "quiet-frog")?, Some(app.clone()));
        assert_eq!(apps::find(tx, &app.id.to_string())?, Some(app.clone()));
        assert_eq!(apps::find(tx, "other")?, None);
        assert_eq!(slugs::get(tx, slug.id)?, Some(slug.clone()));
        assert_eq!(releases::list(tx, app.id)?, [second.clone(), first.clone()]);
        assert_eq!(releases::newest(tx, app.id)?, Some(second.clone()));
        assert_eq!(releases::current(tx, app.id)?, Some(first.clone()));
        assert_eq!(releases::oldest_pending(tx, app.id)?, Some(second.clone()));
        assert_eq!(releases::by_version(tx, app.id, 1)?, Some(first));
        assert_eq!(releases::get(tx, second.id)?, Some(second));
        assert_eq!(builds::list(tx, app.id)?, slice::from_ref(&build));
        assert_eq!(builds::pending(tx)?, [build]);
        Ok(())
    });
}

#[test]
fn a_closure_that_fails_changes_nothing_and_a_read_can_not_write() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    let failed: Result<(), StoreError> = run(store.write(|tx| {
        new_app(tx, "half-made")?;
        Err(StoreError::Closed)
    }));
    assert!(matches!(failed, Err(StoreError::Closed)));
    assert_eq!(read(&store, apps::list), []);
    let written: Result<App, StoreError> = run(store.read(|tx| new_app(tx, "not-here")));
    assert!(matches!(written, Err(StoreError::Sqlite(_))), "{written:?}");
    let twice: Result<App, StoreError> = run(store.write(|tx| {
        new_app(tx, "taken")?;
        new_app(tx, "taken")
    }));
    assert!(matches!(twice, Err(StoreError::Sqlite(_))), "{twice:?}");
}

#[test]
fn what_was_settled_never_changes_again() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let app = new_app(tx, "app")?;
        let slug = new_slug(tx, app.id, 1)?;
        let release = new_release(tx, app.id, &Change::Slug { slug: slug.id, description: None })?;
        releases::pass_phase(tx, release.id, Timestamp::now())?;
        assert!(releases::settle(tx, release.id, ReleaseStatus::Failed, Some("no port"), Timestamp::now())?);
        assert!(!releases::settle(tx, release.id, ReleaseStatus::Succeeded, None, Timestamp::now())?);
        let release = releases::get(tx, release.id)?.unwrap();
        assert_eq!((release.status, release.failure.as_deref()), (ReleaseStatus::Failed, Some("no port")));
        assert!(release.phase_passed && releases::oldest_pending(tx, app.id)?.is_none());

        let build = Build {
            id: BuildId(Uuid::new_v4()),
            app: app.id,
            actor: app.owner.clone(),
            status: BuildStatus::Pending,
            source_version: None,
            buildpacks: vec![],
            stack: "host".into(),
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
        };
        builds::insert(tx, &build)?;
        builds::set_buildpacks(tx, build.id, &["a".into()])?;
        let done = BuildStatus::Succeeded { slug: slug.id, release: Some(release.id) };
        assert!(builds::settle(tx, build.id, &done, Timestamp::now())?);
        assert!(!builds::settle(tx, build.id, &BuildStatus::Failed { reason: "x".into() }, Timestamp::now())?);
        let build = builds::get(tx, build.id)?.unwrap();
        assert_eq!((build.status, build.buildpacks), (done, vec!["a".to_owned()]));
        Ok(())
    });
}

#[test]
fn formations_epochs_and_buildpacks_are_replaced_row_by_row() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let app = new_app(tx, "app")?.id;
        let kind = |name: &str| ProcessType::parse(name).unwrap();
        let formation = |rows: &[(&str, u32)]| {
            Formation(rows.iter().map(|(name, n)| (kind(name), Scale { quantity: *n, ..Scale::default() })).collect())
        };
        formations::put(tx, app, &formation(&[("web", 1), ("worker", 0)]))?;
        let before = formations::rows(tx, app)?;
        formations::put(tx, app, &formation(&[("web", 1), ("worker", 3)]))?;
        let after = formations::rows(tx, app)?;
        assert_eq!(after[0], before[0], "web is not touched");
        assert_eq!((after[1].id, after[1].scale.quantity), (before[1].id, 3));
        formations::put(tx, app, &formation(&[("clock", 2)]))?;
        assert_eq!(formations::get(tx, app)?, formation(&[("clock", 2)]));

        let (one, two) = (DynoName::new(kind("web"), 1), DynoName::new(kind("web"), 2));
        epochs::bump(tx, app, slice::from_ref(&one))?;
        epochs::bump(tx, app, &[one.clone(), two.clone()])?;
        assert_eq!(epochs::get(tx, app)?, [(one, 2), (two, 1)].into());

        buildpacks::put(tx, app, &["b".into(), "a".into()])?;
        buildpacks::put(tx, app, &["c".into(), "b".into(), "a".into()])?;
        assert_eq!(buildpacks::get(tx, app)?, ["c", "b", "a"]);
        Ok(())
    });
}

#[test]
fn a_stack_that_the_owner_has_chosen_is_not_replaced_by_one_that_is_pinned() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    let id = write(&store, |tx| new_app(tx, "app")).id;
    let kept = |app: Option<App>| app.map(|app| (app.stack, app.stack_chosen)).unwrap();
    write(&store, move |tx| apps::pin_stack(tx, id, StackName::Debian13));
    assert_eq!(kept(read(&store, move |tx| apps::get(tx, id))), (StackName::Debian13, false));
    write(&store, move |tx| apps::set_stack(tx, id, StackName::Host));
    write(&store, move |tx| apps::pin_stack(tx, id, StackName::Debian13));
    assert_eq!(kept(read(&store, move |tx| apps::get(tx, id))), (StackName::Host, true));
}

#[test]
fn egress_is_the_internet_until_something_else_is_kept() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let app = new_app(tx, "quiet-frog")?;
        assert_eq!(egress::get(tx, app.id)?, Egress::Internet);
        for text in ["none", "10.0.0.0/8 tcp/443", "internet", "none"] {
            let kept: Egress = text.parse().unwrap();
            egress::put(tx, app.id, &kept)?;
            assert_eq!(egress::get(tx, app.id)?, kept);
            assert_eq!(egress::all(tx)?.get(&app.id).cloned().unwrap_or_default(), kept);
        }
        apps::delete(tx, app.id)?;
        assert_eq!(egress::all(tx)?.len(), 0);
        Ok(())
    });
}

#[test]
fn a_destroyed_app_leaves_no_row_but_shared_digests_stay_in_use() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let (gone, stays) = (new_app(tx, "gone")?.id, new_app(tx, "stays")?.id);
        let slug = new_slug(tx, gone, 1)?;
        new_slug(tx, gone, 2)?;
        new_slug(tx, stays, 1)?;
        let release = new_release(tx, gone, &Change::Slug { slug: slug.id, description: None })?;
        let build = Build {
            id: BuildId(Uuid::new_v4()),
            app: gone,
            actor: release.actor.clone(),
            status: BuildStatus::Succeeded { slug: slug.id, release: Some(release.id) },
            source_version: None,
            buildpacks: vec![],
            stack: "host".into(),
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
        };
        builds::insert(tx, &build)?;
        buildpacks::put(tx, gone, &["a".into()])?;
        assert!(apps::delete(tx, gone)?);
        assert!(!apps::delete(tx, gone)?);
        assert_eq!(releases::list(tx, gone)?, []);
        assert!(slugs::digest_in_use(tx, &Digest::of([1; 32]))?);
        assert!(!slugs::digest_in_use(tx, &Digest::of([2; 32]))?);
        Ok(())
    });
}

#[test]
fn tokens_work_until_they_expire_or_are_deleted() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let admin = accounts::admin(tx)?;
        assert_eq!(accounts::find(tx, "ADMIN@localhost")?, Some(admin.clone()));
        assert_eq!(accounts::get(tx, admin.id)?, Some(admin.clone()));
        let now = Timestamp::now();
        let later = now + jiff::SignedDuration::from_secs(60);
        let read: Scopes = "read".parse().unwrap();
        let lasting = tokens::insert(tx, admin.id, &[1; 32], "laptop", &Scopes::default(), None, false)?;
        let brief = tokens::insert(tx, admin.id, &[2; 32], "login", &read, Some(later), true)?;
        let whose = Caller { actor: admin.actor(), admin: true };
        assert_eq!(tokens::caller_of(tx, &[2; 32], now)?, Some((whose, read, brief.id)));
        assert_eq!(tokens::digest(tx, brief.id)?, Some([2; 32]));
        assert_eq!(tokens::caller_of(tx, &[2; 32], later)?, None);
        assert_eq!(tokens::caller_of(tx, &[3; 32], now)?, None);
        assert_eq!(tokens::list(tx, admin.id, now)?, [lasting.clone(), brief.clone()]);
        assert_eq!(tokens::list(tx, admin.id, later)?, slice::from_ref(&lasting));
        assert_eq!(tokens::by_digest(tx, &[2; 32])?, Some(brief));
        assert!(tokens::delete(tx, admin.id, lasting.id)?);
        assert!(!tokens::delete(tx, admin.id, lasting.id)?);
        assert_eq!(tokens::caller_of(tx, &[1; 32], now)?, None);
        Ok(())
    });
}

#[test]
fn config_vars_are_in_no_file_in_the_clear_and_all_files_are_private() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    let release = write(&store, |tx| {
        let app = new_app(tx, "app")?;
        new_release(tx, app.id, &Change::Config(&config("API_TOKEN", "very-secret-value")))
    });
    for entry in fs::read_dir(root.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(17).any(|part| part == b"very-secret-value"), "{}", path.display());
    }
    // Sealed vars that are moved to another release do not open there.
    let error: StoreError = run(store.write(move |tx| {
        tx.execute("UPDATE releases SET id = ?2 WHERE id = ?1", (column::text(release.id), column::text(Uuid::nil())))?;
        releases::get(tx, ReleaseId(Uuid::nil()))
    }))
    .unwrap_err();
    assert!(matches!(error, StoreError::Sealed(_)), "{error:?}");
}

#[test]
fn each_thing_that_can_be_wrong_with_the_files_is_one_clear_sentence() {
    let message = |root: &TempDir| {
        let error = Store::open(root.path()).unwrap_err();
        error.to_string().replace(root.path().to_str().unwrap(), "ROOT")
    };
    let made = || {
        let root = root();
        let store = Store::open(root.path()).unwrap();
        write(&store, |tx| new_app(tx, "app"));
        drop(store);
        root
    };

    let no_key = made();
    fs::remove_file(no_key.path().join(KEY_FILE)).unwrap();
    insta::assert_snapshot!(message(&no_key), @"the key ROOT/key is missing, without it the config vars in ROOT/db.sqlite can't be read: put it back from a backup");

    let short_key = made();
    fs::write(short_key.path().join(KEY_FILE), b"short").unwrap();
    insta::assert_snapshot!(message(&short_key), @"the key ROOT/key is damaged, it should have 32 bytes and has 5: put it back from a backup");

    let other_key = made();
    fs::write(other_key.path().join(KEY_FILE), [0; 32]).unwrap();
    insta::assert_snapshot!(message(&other_key), @"the key does not belong to the database ROOT/db.sqlite: put back the one it was made with");

    let newer = made();
    let connection = rusqlite::Connection::open(newer.path().join(FILE)).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    insta::assert_snapshot!(message(&newer), @"the database ROOT/db.sqlite was written by a newer hokku (schema 999, this one knows up to 14): use that version");

    let not_sqlite = made();
    fs::write(not_sqlite.path().join(FILE), "this is a letter to my aunt\n".repeat(1000)).unwrap();
    insta::assert_snapshot!(message(&not_sqlite), @"the database ROOT/db.sqlite is damaged (file is not a database): stop the server, move the file away and put a backup in its place");

    let scribbled = made();
    let mut file = fs::OpenOptions::new().read(true).write(true).open(scribbled.path().join(FILE)).unwrap();
    let length = file.seek(SeekFrom::End(0)).unwrap();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length).unwrap() - 4096]).unwrap();
    drop(file);
    let text = message(&scribbled);
    assert!(text.starts_with("the database ROOT/db.sqlite is damaged ("), "{text}");

    let unwritable = root();
    fs::create_dir(unwritable.path().join(FILE)).unwrap();
    fs::write(unwritable.path().join(KEY_FILE), [0; 32]).unwrap();
    insta::assert_snapshot!(message(&unwritable), @"can't use ROOT/db.sqlite");
}

/// Rows of a database with the first schema.
const FIXTURE_1: &str = "
    INSERT INTO accounts VALUES ('00000000-0000-0000-0000-000000000001', 'admin@localhost', 1, 0, 0);
    INSERT INTO apps VALUES ('00000000-0000-0000-0000-000000000002', 'old', '00000000-0000-0000-0000-000000000001', 'host',
                             0, 0, 0, NULL);";

#[test]
fn an_older_database_is_upgraded_and_a_failing_upgrade_changes_nothing() {
    let root = root();
    let path = root.path().join(FILE);
    let mut connection = rusqlite::Connection::open(&path).unwrap();
    // The first schema comes from nothing; each later one adds the fixture of the one before here.
    open::migrate(&mut connection, &path, &[include_str!("migrations/0001.sql")]).unwrap();
    let version = |connection: &rusqlite::Connection| -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    assert_eq!(version(&connection), 1);
    connection.execute_batch(FIXTURE_1).unwrap();
    let schemas = [include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];
    open::migrate(&mut connection, &path, &schemas).unwrap();
    let apps: u32 = connection.query_row("SELECT count(*) FROM apps", (), |row| row.get(0)).unwrap();
    assert_eq!((version(&connection), apps), (2, 1));

    let next = "CREATE TABLE more (x) STRICT_IS_MISSPELT";
    open::migrate(&mut connection, &path, &["", "", "CREATE TABLE kept (x)", next]).unwrap_err();
    assert_eq!(version(&connection), 2);
    let tables = |connection: &rusqlite::Connection| -> u32 {
        connection
            .query_row("SELECT count(*) FROM sqlite_master WHERE name IN ('kept', 'more')", (), |r| r.get(0))
            .unwrap()
    };
    assert_eq!(tables(&connection), 0);
    open::migrate(&mut connection, &path, &["", "", "CREATE TABLE kept (x)", "CREATE TABLE more (x)"]).unwrap();
    assert_eq!((version(&connection), tables(&connection)), (4, 2));
}

/// A database as the first hokku left it.
fn of_the_first_schema(path: &std::path::Path) -> rusqlite::Connection {
    let mut connection = rusqlite::Connection::open(path).unwrap();
    open::migrate(&mut connection, path, &[include_str!("migrations/0001.sql")]).unwrap();
    connection.execute_batch(FIXTURE_1).unwrap();
    connection
}

#[test]
fn an_upgrade_keeps_one_copy_of_the_database_that_leads_back() {
    let root = root();
    let (path, kept) = (root.path().join(FILE), root.path().join(copy::BEFORE_UPGRADE));
    drop(Store::open(root.path()).unwrap());
    drop(Store::open(root.path()).unwrap());
    assert!(!kept.exists(), "nothing was upgraded");
    fs::remove_file(&path).unwrap();
    drop(of_the_first_schema(&path));
    fs::write(&kept, "of the upgrade before").unwrap();
    drop(Store::open(root.path()).unwrap());
    let look = |path: &std::path::Path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let apps: u32 = connection.query_row("SELECT count(*) FROM apps", (), |row| row.get(0)).unwrap();
        (version, apps)
    };
    assert_eq!((look(&kept), look(&path)), ((1, 1), (copy::schema(), 1)));
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    // A newer hokku's database says where the way back is.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let error = Store::open(root.path()).unwrap_err().to_string();
    let way = format!(": use that version, or put {} in its place, which is of before the upgrade", kept.display());
    assert!(error.ends_with(&way), "{error}");
}

#[test]
fn an_upgrade_that_a_power_cut_ended_is_begun_again() {
    let (root, after) = (root(), root_of_a_new_box());
    let path = root.path().join(FILE);
    let mut connection = of_the_first_schema(&path);
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    // So that some of it is on the disk before it is committed.
    connection.pragma_update(None, "cache_size", 1).unwrap();
    let transaction = connection.transaction().unwrap();
    transaction.execute_batch(include_str!("migrations/0002.sql")).unwrap();
    transaction.execute_batch("CREATE TABLE half (x); INSERT INTO half VALUES (randomblob(1000000))").unwrap();
    for file in [FILE, "db.sqlite-wal"] {
        fs::copy(root.path().join(file), after.path().join(file)).unwrap();
    }
    assert!(fs::metadata(after.path().join("db.sqlite-wal")).unwrap().len() > 500_000);
    drop(transaction);
    let store = Store::open(after.path()).unwrap();
    assert_eq!(read(&store, |tx| Ok(apps::list(tx)?.len())), 1);
    let connection = rusqlite::Connection::open(after.path().join(FILE)).unwrap();
    let half: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'half'", (), |row| row.get(0)).unwrap();
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((half, version), (0, copy::schema()));
}

/// With a key, and a database to be put there.
fn root_of_a_new_box() -> TempDir {
    let root = root();
    fs::write(root.path().join(KEY_FILE), [3; 32]).unwrap();
    root
}

/// Runs the ignored test `name` of this very file in a process of its own, with ROOT in its environment.
fn child(name: &str, root: &std::path::Path, before: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = before.iter().map(AsRef::as_ref).collect();
    words.push(test.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--exact", &format!("store::tests::{name}"), "--ignored", "--nocapture"]);
    command.env("STORE_TEST_ROOT", root).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Writes pairs of rows for ever, saying each number once it is safe.
#[test]
#[ignore = "the child of a_server_killed_at_any_moment_loses_nothing_that_was_answered"]
#[expect(clippy::print_stdout, reason = "the way it answers its parent")]
fn child_that_writes() {
    let Some(root) = std::env::var_os("STORE_TEST_ROOT") else { return };
    let store = Store::open(root.as_ref()).unwrap();
    let app = write(&store, |tx| match apps::find(tx, "app")? {
        Some(app) => Ok(app),
        None => new_app(tx, "app"),
    });
    for number in 0.. {
        let version = write(&store, move |tx| {
            let patch = config("N", &format!("{number} {}", Uuid::new_v4()));
            let release = new_release(tx, app.id, &Change::Config(&patch))?;
            epochs::bump(tx, app.id, &["web.1".parse().unwrap()])?;
            Ok(release.version)
        });
        println!("safe {version}");
    }
}

#[test]
fn a_server_killed_at_any_moment_loses_nothing_that_was_answered() {
    let root = root();
    for round in 0..6 {
        let mut child = child("child_that_writes", root.path(), &["env"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed after another number of lines each time; in round 0 perhaps while the database is being made.
        for _ in 0..round * 7 {
            lines.next().unwrap().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let answered = rest.iter().filter_map(|line| line.strip_prefix("safe ")?.parse::<u64>().ok()).max();
        let store = Store::open(root.path()).unwrap();
        read(&store, move |tx| {
            let Some(app) = apps::find(tx, "app")? else {
                assert_eq!(answered, None);
                return Ok(());
            };
            let releases = releases::list(tx, app.id)?;
            let newest = releases.first().map_or(0, |release| u64::from(release.version));
            assert!(newest >= answered.unwrap_or(0), "{newest} {answered:?}");
            assert_eq!(releases.len() as u64, newest, "no version is missing");
            assert_eq!(epochs::get(tx, app.id)?.values().sum::<u64>(), newest, "both halves or none");
            assert!(releases.iter().all(|release| release.config != ConfigVars::default()));
            Ok(())
        });
    }
}

/// Writes until the disk is full, then tells what it heard.
#[test]
#[ignore = "the child of a_full_disk_is_said_and_what_was_there_stays"]
#[expect(clippy::print_stdout, reason = "the way it answers its parent")]
fn child_that_fills_the_disk() {
    let Some(root) = std::env::var_os("STORE_TEST_ROOT") else { return };
    let store = Store::open(root.as_ref()).unwrap();
    let app = write(&store, |tx| new_app(tx, "app"));
    let id = app.id;
    let error = (0_u32..)
        .find_map(|number| {
            run(store.write(move |tx| {
                let patch = config("BIG", &format!("{number}{}", "x".repeat(60_000)));
                new_release(tx, id, &Change::Config(&patch))
            }))
            .err()
        })
        .unwrap();
    println!("heard: {error}");
    let before = read(&store, move |tx| Ok(releases::list(tx, id)?.len()));
    println!("kept: {}", before > 0);
    drop(store);
    let store = Store::open(root.as_ref()).unwrap();
    println!("same: {}", read(&store, move |tx| Ok(releases::list(tx, id)?.len())) == before);
}

#[test]
fn a_full_disk_is_said_and_what_was_there_stays() {
    let root = root();
    // A small disk of its own, in a mount namespace that ends with the child.
    let script = "mount -t tmpfs -o size=2m none \"$STORE_TEST_ROOT\" && exec \"$@\"";
    let before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let mut child = child("child_that_fills_the_disk", root.path(), &before).spawn().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{output}");
    let said: Vec<&str> =
        output.lines().filter(|line| ["heard", "kept", "same"].iter().any(|word| line.starts_with(word))).collect();
    assert_eq!(
        said,
        [
            "heard: the disk that holds the database db.sqlite is full: nothing was changed; make room and try again",
            "kept: true",
            "same: true"
        ]
    );
}
