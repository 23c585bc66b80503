//! The command line: Heroku's topics, wording and exit statuses. It speaks only the HTTP API and sees neither the store
//! nor the kernel.
//!
//! One file per topic: the arguments with their help on top, the command below. [`parse`] turns the arguments into an
//! [`Invocation`]; starting a server and taking an instance away are left to `main.rs`, as they are not a client's work.
#![forbid(unsafe_code)]

mod access;
mod addons;
mod apps;
mod archive;
mod attach;
mod audit;
mod auth;
mod authorizations;
mod buildpacks;
mod builds;
mod certs;
mod config;
mod context;
mod disk;
mod domains;
mod drains;
mod egress;
mod errors;
mod git;
mod host;
mod keys;
mod labs;
mod logs;
mod maintenance;
mod oauth_clients;
mod output;
mod pipelines;
mod ps;
mod releases;
mod remotes;
mod run;
mod runtime;
mod sessions;
mod shell;
mod stack;
mod terminal;
mod users;
mod when;

pub use context::ServerArgs;
pub use host::{Backup, Down, Install, Restore, Server, Uninstall, root};

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use context::Context;
use errors::{Failure, status};
use output::Output;
use std::ffi::OsString;

/// Heroku for one Linux box, without Docker
#[derive(Parser, Debug)]
#[command(name = "hokku", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Server(Server),
    Down(Down),
    Install(Install),
    Uninstall(Uninstall),
    Backup(Backup),
    Restore(Restore),
    Doctor(host::Doctor),
    Disk(disk::Show),
    #[command(name = "disk:collect")]
    DiskCollect(disk::Collect),

    Addons(addons::List),
    #[command(name = "addons:services")]
    AddonsServices(addons::Services),
    #[command(name = "addons:plans")]
    AddonsPlans(addons::Plans),
    #[command(name = "addons:create", visible_alias = "addons:add")]
    AddonsCreate(addons::Create),
    #[command(name = "addons:attach")]
    AddonsAttach(addons::Attach),
    #[command(name = "addons:detach")]
    AddonsDetach(addons::Detach),
    #[command(name = "addons:info")]
    AddonsInfo(addons::Info),
    #[command(name = "addons:update")]
    AddonsUpdate(addons::Update),
    #[command(name = "addons:rename")]
    AddonsRename(addons::Rename),
    #[command(name = "addons:destroy", visible_alias = "addons:remove")]
    AddonsDestroy(addons::Destroy),

    Apps(apps::List),
    #[command(name = "apps:create", visible_alias = "create")]
    AppsCreate(apps::Create),
    #[command(name = "apps:info", visible_alias = "info")]
    AppsInfo(apps::Info),
    #[command(name = "apps:rename", visible_alias = "rename")]
    AppsRename(apps::Rename),
    #[command(name = "apps:destroy", visible_aliases = ["destroy", "apps:delete"])]
    AppsDestroy(apps::Destroy),
    #[command(name = "apps:transfer")]
    AppsTransfer(access::Transfer),
    #[command(name = "apps:transfers")]
    AppsTransfers(access::Transfers),
    #[command(name = "apps:transfers:accept")]
    AppsTransfersAccept(access::Accept),
    #[command(name = "apps:transfers:decline")]
    AppsTransfersDecline(access::Decline),
    #[command(name = "apps:join")]
    AppsJoin(access::Join),
    #[command(name = "apps:leave")]
    AppsLeave(access::Leave),
    #[command(name = "apps:lock")]
    AppsLock(access::Lock),
    #[command(name = "apps:unlock")]
    AppsUnlock(access::Unlock),

    Access(access::List),
    #[command(name = "access:add")]
    AccessAdd(access::Add),
    #[command(name = "access:update")]
    AccessUpdate(access::Update),
    #[command(name = "access:remove")]
    AccessRemove(access::Remove),

    Users(users::List),
    #[command(name = "users:create", visible_alias = "users:add")]
    UsersCreate(users::Create),
    #[command(name = "users:update")]
    UsersUpdate(users::Update),
    #[command(name = "users:password")]
    UsersPassword(users::Password),
    #[command(name = "users:remove")]
    UsersRemove(users::Remove),
    Audit(audit::Show),

    Keys(keys::List),
    #[command(name = "keys:add")]
    KeysAdd(keys::Add),
    #[command(name = "keys:remove")]
    KeysRemove(keys::Remove),
    #[command(name = "keys:clear")]
    KeysClear(keys::Clear),

    #[command(name = "git:remote")]
    GitRemote(git::Remote),
    #[command(name = "git:credentials")]
    GitCredentials(git::Credentials),
    Deploy(builds::Deploy),
    #[command(visible_alias = "builds:rebuild")]
    Rebuild(builds::Rebuild),

    Config(config::List),
    #[command(name = "config:get")]
    ConfigGet(config::Get),
    #[command(name = "config:set", visible_alias = "config:add")]
    ConfigSet(config::Set),
    #[command(name = "config:edit")]
    ConfigEdit(config::Edit),
    #[command(name = "config:unset", visible_alias = "config:remove")]
    ConfigUnset(config::Unset),

    Ps(ps::List),
    #[command(name = "ps:scale", visible_aliases = ["scale", "dyno:scale"])]
    PsScale(ps::Scale),
    #[command(name = "ps:restart", visible_aliases = ["restart", "dyno:restart"])]
    PsRestart(ps::Restart),
    #[command(name = "ps:stop", visible_aliases = ["stop", "ps:kill", "kill", "dyno:stop"])]
    PsStop(ps::Stop),

    #[command(name = "ps:type", visible_aliases = ["ps:resize", "dyno:type", "dyno:resize"])]
    PsType(ps::Type),
    #[command(name = "ps:wait")]
    PsWait(ps::Wait),

    Run(run::Run),
    #[command(name = "run:inside")]
    RunInside(run::Inside),
    #[command(name = "run:detached")]
    RunDetached(run::Detached),

    Logs(logs::Logs),

    Releases(releases::List),
    #[command(name = "releases:info", visible_alias = "release")]
    ReleasesInfo(releases::Info),
    #[command(name = "releases:output")]
    ReleasesOutput(releases::Output),
    #[command(name = "releases:retry")]
    ReleasesRetry(releases::Retry),
    #[command(name = "rollback", visible_alias = "releases:rollback")]
    Rollback(releases::Rollback),

    Builds(builds::List),
    #[command(name = "builds:output")]
    BuildsOutput(builds::Output),
    #[command(name = "builds:cancel")]
    BuildsCancel(builds::Cancel),
    #[command(name = "builds:cache:purge")]
    BuildsCachePurge(builds::Purge),

    Buildpacks(buildpacks::List),
    #[command(name = "buildpacks:set")]
    BuildpacksSet(buildpacks::Set),
    #[command(name = "buildpacks:add")]
    BuildpacksAdd(buildpacks::Add),
    #[command(name = "buildpacks:remove")]
    BuildpacksRemove(buildpacks::Remove),
    #[command(name = "buildpacks:clear")]
    BuildpacksClear(buildpacks::Clear),
    #[command(name = "buildpacks:search")]
    BuildpacksSearch(buildpacks::Search),
    #[command(name = "buildpacks:info")]
    BuildpacksInfo(buildpacks::Info),
    #[command(name = "buildpacks:versions")]
    BuildpacksVersions(buildpacks::Versions),

    Stack(stack::List),
    #[command(name = "stack:set")]
    StackSet(stack::Set),
    #[command(name = "stack:build")]
    StackBuild(stack::Build),
    #[command(name = "stack:update")]
    StackUpdate(stack::Update),
    #[command(name = "stack:export")]
    StackExport(stack::Export),
    #[command(name = "stack:import")]
    StackImport(stack::Import),

    #[command(name = "runtime:list", visible_alias = "runtime")]
    RuntimeList(runtime::List),
    #[command(name = "runtime:import")]
    RuntimeImport(runtime::Import),
    #[command(name = "runtime:remove")]
    RuntimeRemove(runtime::Remove),

    Pipelines(pipelines::List),
    #[command(name = "pipelines:create")]
    PipelinesCreate(pipelines::Create),
    #[command(name = "pipelines:add")]
    PipelinesAdd(pipelines::Add),
    #[command(name = "pipelines:remove")]
    PipelinesRemove(pipelines::Remove),
    #[command(name = "pipelines:update")]
    PipelinesUpdate(pipelines::Update),
    #[command(name = "pipelines:info")]
    PipelinesInfo(pipelines::Info),
    #[command(name = "pipelines:rename")]
    PipelinesRename(pipelines::Rename),
    #[command(name = "pipelines:destroy")]
    PipelinesDestroy(pipelines::Destroy),
    #[command(name = "pipelines:promote")]
    PipelinesPromote(pipelines::Promote),
    Domains(domains::List),
    #[command(name = "domains:add")]
    DomainsAdd(domains::Add),
    #[command(name = "domains:remove")]
    DomainsRemove(domains::Remove),
    #[command(name = "domains:clear")]
    DomainsClear(domains::Clear),

    Certs(certs::List),
    #[command(name = "certs:add")]
    CertsAdd(certs::Add),
    #[command(name = "certs:info")]
    CertsInfo(certs::Info),
    #[command(name = "certs:update")]
    CertsUpdate(certs::Update),
    #[command(name = "certs:remove")]
    CertsRemove(certs::Remove),

    Drains(drains::List),
    #[command(name = "drains:add")]
    DrainsAdd(drains::Add),
    #[command(name = "drains:remove")]
    DrainsRemove(drains::Remove),

    Egress(egress::Show),
    #[command(name = "egress:set")]
    EgressSet(egress::Set),

    Labs(labs::List),
    #[command(name = "labs:enable")]
    LabsEnable(labs::Enable),
    #[command(name = "labs:disable")]
    LabsDisable(labs::Disable),

    Maintenance(maintenance::Show),
    #[command(name = "maintenance:on")]
    MaintenanceOn(maintenance::On),
    #[command(name = "maintenance:off")]
    MaintenanceOff(maintenance::Off),

    Authorizations(authorizations::List),
    Clients(oauth_clients::List),
    #[command(name = "clients:create")]
    ClientsCreate(oauth_clients::Create),
    #[command(name = "clients:info")]
    ClientsInfo(oauth_clients::Info),
    #[command(name = "clients:update")]
    ClientsUpdate(oauth_clients::Update),
    #[command(name = "clients:rotate")]
    ClientsRotate(oauth_clients::Rotate),
    #[command(name = "clients:destroy")]
    ClientsDestroy(oauth_clients::Destroy),
    Sessions(sessions::List),
    #[command(name = "sessions:destroy")]
    SessionsDestroy(sessions::Destroy),
    #[command(name = "authorizations:create")]
    AuthorizationsCreate(authorizations::Create),
    #[command(name = "authorizations:info")]
    AuthorizationsInfo(authorizations::Info),
    #[command(name = "authorizations:revoke")]
    AuthorizationsRevoke(authorizations::Revoke),
    #[command(name = "authorizations:rotate")]
    AuthorizationsRotate(authorizations::Rotate),
    #[command(name = "authorizations:update")]
    AuthorizationsUpdate(authorizations::Update),

    #[command(name = "auth:login", visible_alias = "login")]
    AuthLogin(auth::Login),
    #[command(name = "auth:logout", visible_alias = "logout")]
    AuthLogout(auth::Logout),
    #[command(name = "auth:token")]
    AuthToken(auth::Token),
    #[command(name = "auth:whoami", visible_alias = "whoami")]
    AuthWhoami(auth::Whoami),
    Env(auth::Env),
    Completions(shell::Completions),
    Man(shell::ManPage),
    Help(shell::Help),
    Version(Version),
}

/// Print the version
#[derive(clap::Args, Debug)]
struct Version {}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Start a server.
    Server(ServerArgs, Server),
    /// End an instance.
    Down(ServerArgs, Down),
    Install(ServerArgs, Install),
    Uninstall(ServerArgs, Uninstall),
    Backup(ServerArgs, Backup),
    Restore(ServerArgs, Restore),
    /// A command of the client, for [`run`].
    Client(Box<Client>),
    /// Everything has been said; end with this status.
    Ended(u8),
}

/// A command of the client.
#[derive(Debug)]
pub struct Client {
    server: ServerArgs,
    command: Command,
}

/// The whole command line, for parsing, help, manual pages and completions.
fn program() -> clap::Command {
    shell::with_overview(Cli::command())
}

/// Reads the arguments, the program's name first. Help and errors of usage are printed here.
pub fn parse(args: Vec<OsString>) -> Invocation {
    let out = Output::of_process();
    let parsed = program().try_get_matches_from(run::hoist(args)).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(Cli { server, command: Some(Command::Server(options)) }) => Invocation::Server(server, options),
        Ok(Cli { server, command: Some(Command::Down(options)) }) => Invocation::Down(server, options),
        Ok(Cli { server, command: Some(Command::Install(options)) }) => Invocation::Install(server, options),
        Ok(Cli { server, command: Some(Command::Uninstall(options)) }) => Invocation::Uninstall(server, options),
        Ok(Cli { server, command: Some(Command::Backup(options)) }) => Invocation::Backup(server, options),
        Ok(Cli { server, command: Some(Command::Restore(options)) }) => Invocation::Restore(server, options),
        Ok(Cli { server, command: Some(command) }) => Invocation::Client(Box::new(Client { server, command })),
        Ok(Cli { command: None, .. }) => Invocation::Ended(ended(out, print_help(out))),
        Err(error) => Invocation::Ended(ended(out, explain(out, &error))),
    }
}

fn print_help(out: Output) -> Result<u8, Failure> {
    out.bytes(program().render_help().to_string().as_bytes()).map(|()| status::OK)
}

/// What clap says, in our form.
fn explain(out: Output, error: &clap::Error) -> Result<u8, Failure> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => out.bytes(text.as_bytes()).map(|()| status::OK),
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text).replace("  tip: ", "  hint: ");
            Err(Failure::usage(text.trim_end()))
        }
    }
}

/// Runs a command to its end and returns the exit status.
pub fn run(client: Client) -> u8 {
    let out = Output::of_process();
    let Client { server, command } = client;
    let ctx = Context::new(out, server);
    let result = match local(&ctx, command) {
        Ok(done) => done.map(|()| status::OK),
        Err(command) => in_runtime(&ctx, *command),
    };
    ended(out, result)
}

/// Prints why a server could not start or an instance could not be ended, and returns the exit status.
pub fn report(error: &anyhow::Error) -> u8 {
    ended(Output::of_process(), Err(Failure::new(format!("{error:#}"))))
}

fn ended(out: Output, result: Result<u8, Failure>) -> u8 {
    match result {
        Ok(status) => status,
        Err(failure) => {
            out.failure(&failure);
            failure.status()
        }
    }
}

/// Commands that ask no server; the others come back.
fn local(ctx: &Context, command: Command) -> Result<Result<(), Failure>, Box<Command>> {
    Ok(match command {
        Command::Completions(args) => shell::completions(ctx.out, program(), &args),
        Command::Man(args) => shell::man(ctx.out, program(), &args),
        Command::Help(args) => shell::help(ctx.out, program(), &args),
        Command::Version(Version {}) => ctx.out.line(format_args!("hokku {}", env!("CARGO_PKG_VERSION"))),
        Command::Doctor(args) => host::doctor(ctx, &args).and_then(|status| match status {
            status::OK => Ok(()),
            status => Err(Failure::silent(status)),
        }),
        command => return Err(Box::new(command)),
    })
}

/// One thread is enough for a client and starts in no time.
fn in_runtime(ctx: &Context, command: Command) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::local("the runtime can't be started", &error))?;
    let result = runtime.block_on(Box::pin(dispatch(ctx, command)));
    // A thread may still be waiting for input that nobody wants any more.
    runtime.shutdown_background();
    result
}

#[expect(clippy::too_many_lines, reason = "a line for each command")]
async fn dispatch(ctx: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => return run::run(ctx, args).await,
        Command::Disk(args) => disk::show(ctx, args).await,
        Command::DiskCollect(args) => disk::collect(ctx, args).await,
        Command::Addons(args) => addons::list(ctx, args).await,
        Command::AddonsServices(args) => addons::services(ctx, &args).await,
        Command::AddonsPlans(args) => addons::plans(ctx, &args).await,
        Command::AddonsCreate(args) => addons::create(ctx, args).await,
        Command::AddonsAttach(args) => addons::attach(ctx, args).await,
        Command::AddonsDetach(args) => addons::detach(ctx, args).await,
        Command::AddonsInfo(args) => addons::info(ctx, args).await,
        Command::AddonsUpdate(args) => addons::update(ctx, args).await,
        Command::AddonsRename(args) => addons::rename(ctx, args).await,
        Command::AddonsDestroy(args) => addons::destroy(ctx, args).await,
        Command::Apps(args) => apps::list(ctx, args).await,
        Command::AppsCreate(args) => apps::create(ctx, args).await,
        Command::AppsInfo(args) => apps::info(ctx, args).await,
        Command::AppsRename(args) => apps::rename(ctx, args).await,
        Command::AppsDestroy(args) => apps::destroy(ctx, args).await,
        Command::AppsTransfer(args) => access::transfer(ctx, args).await,
        Command::AppsTransfers(args) => access::transfers(ctx, args).await,
        Command::AppsTransfersAccept(args) => access::accept(ctx, args).await,
        Command::AppsTransfersDecline(args) => access::decline(ctx, args).await,
        Command::AppsJoin(args) => access::join(ctx, args).await,
        Command::AppsLeave(args) => access::leave(ctx, args).await,
        Command::AppsLock(args) => access::lock(ctx, args).await,
        Command::AppsUnlock(args) => access::unlock(ctx, args).await,
        Command::Labs(args) => labs::list(ctx, args).await,
        Command::LabsEnable(args) => labs::enable(ctx, args).await,
        Command::LabsDisable(args) => labs::disable(ctx, args).await,
        Command::Access(args) => access::list(ctx, args).await,
        Command::AccessAdd(args) => access::add(ctx, args).await,
        Command::AccessUpdate(args) => access::update(ctx, args).await,
        Command::AccessRemove(args) => access::remove(ctx, args).await,
        Command::Users(args) => users::list(ctx, args).await,
        Command::UsersCreate(args) => users::create(ctx, args).await,
        Command::UsersUpdate(args) => users::update(ctx, args).await,
        Command::UsersPassword(args) => users::password(ctx, args).await,
        Command::UsersRemove(args) => users::remove(ctx, args).await,
        Command::Audit(args) => audit::show(ctx, args).await,
        Command::Keys(args) => keys::list(ctx, args).await,
        Command::KeysAdd(args) => keys::add(ctx, args).await,
        Command::KeysRemove(args) => keys::remove(ctx, args).await,
        Command::KeysClear(args) => keys::clear(ctx, args).await,
        Command::AuthLogin(args) => auth::login(ctx, args).await,
        Command::AuthLogout(args) => auth::logout(ctx, args).await,
        Command::GitRemote(args) => git::remote(ctx, args).await,
        Command::GitCredentials(args) => git::credentials(ctx, args).await,
        Command::Deploy(args) => builds::deploy(ctx, args).await,
        Command::Rebuild(args) => builds::rebuild(ctx, args).await,
        Command::Config(args) => config::list(ctx, args).await,
        Command::ConfigGet(args) => config::get(ctx, args).await,
        Command::ConfigSet(args) => config::set(ctx, args).await,
        Command::ConfigEdit(args) => config::edit(ctx, args).await,
        Command::ConfigUnset(args) => config::unset(ctx, args).await,
        Command::Ps(args) => ps::list(ctx, args).await,
        Command::PsScale(args) => ps::scale(ctx, args).await,
        Command::PsRestart(args) => ps::restart(ctx, args).await,
        Command::PsStop(args) => ps::stop(ctx, args).await,
        Command::PsType(args) => ps::sizes(ctx, args).await,
        Command::PsWait(args) => ps::wait(ctx, args).await,
        Command::RunInside(args) => return run::inside(ctx, args).await,
        Command::RunDetached(args) => run::detached(ctx, args).await,
        Command::Logs(args) => logs::logs(ctx, args).await,
        Command::Releases(args) => releases::list(ctx, args).await,
        Command::ReleasesInfo(args) => releases::info(ctx, args).await,
        Command::ReleasesOutput(args) => releases::output(ctx, args).await,
        Command::ReleasesRetry(args) => releases::retry(ctx, args).await,
        Command::Rollback(args) => releases::rollback(ctx, args).await,
        Command::Builds(args) => builds::list(ctx, args).await,
        Command::BuildsOutput(args) => builds::output(ctx, args).await,
        Command::BuildsCancel(args) => builds::cancel(ctx, args).await,
        Command::BuildsCachePurge(args) => builds::purge(ctx, args).await,
        Command::Buildpacks(args) => buildpacks::list(ctx, args).await,
        Command::BuildpacksSet(args) => buildpacks::set(ctx, args).await,
        Command::BuildpacksAdd(args) => buildpacks::add(ctx, args).await,
        Command::BuildpacksRemove(args) => buildpacks::remove(ctx, args).await,
        Command::BuildpacksClear(args) => buildpacks::clear(ctx, args).await,
        Command::BuildpacksSearch(args) => buildpacks::search(ctx, args).await,
        Command::BuildpacksInfo(args) => buildpacks::info(ctx, args).await,
        Command::BuildpacksVersions(args) => buildpacks::versions(ctx, args).await,
        Command::Stack(args) => stack::list(ctx, args).await,
        Command::StackSet(args) => stack::set(ctx, args).await,
        Command::StackBuild(args) => stack::build(ctx, args).await,
        Command::StackUpdate(args) => stack::update(ctx, args).await,
        Command::StackExport(args) => stack::export(ctx, args).await,
        Command::StackImport(args) => stack::import(ctx, args).await,
        Command::RuntimeList(args) => runtime::list(ctx, args).await,
        Command::RuntimeImport(args) => runtime::import(ctx, args).await,
        Command::RuntimeRemove(args) => runtime::remove(ctx, args).await,
        Command::Pipelines(args) => pipelines::list(ctx, &args).await,
        Command::PipelinesCreate(args) => pipelines::create(ctx, args).await,
        Command::PipelinesAdd(args) => pipelines::add(ctx, args).await,
        Command::PipelinesRemove(args) => pipelines::remove(ctx, args).await,
        Command::PipelinesUpdate(args) => pipelines::update(ctx, args).await,
        Command::PipelinesInfo(args) => pipelines::info(ctx, args).await,
        Command::PipelinesRename(args) => pipelines::rename(ctx, args).await,
        Command::PipelinesDestroy(args) => pipelines::destroy(ctx, args).await,
        Command::PipelinesPromote(args) => pipelines::promote(ctx, args).await,
        Command::Domains(args) => domains::list(ctx, args).await,
        Command::DomainsAdd(args) => domains::add(ctx, args).await,
        Command::DomainsRemove(args) => domains::remove(ctx, args).await,
        Command::DomainsClear(args) => domains::clear(ctx, args).await,
        Command::Certs(args) => certs::list(ctx, args).await,
        Command::CertsAdd(args) => certs::add(ctx, args).await,
        Command::CertsInfo(args) => certs::info(ctx, args).await,
        Command::CertsUpdate(args) => certs::update(ctx, args).await,
        Command::CertsRemove(args) => certs::remove(ctx, args).await,
        Command::Drains(args) => drains::list(ctx, args).await,
        Command::DrainsAdd(args) => drains::add(ctx, args).await,
        Command::DrainsRemove(args) => drains::remove(ctx, args).await,
        Command::Egress(args) => egress::show(ctx, args).await,
        Command::EgressSet(args) => egress::set(ctx, args).await,
        Command::Maintenance(args) => maintenance::show(ctx, args).await,
        Command::MaintenanceOn(args) => maintenance::on(ctx, args).await,
        Command::MaintenanceOff(args) => maintenance::off(ctx, args).await,
        Command::Clients(args) => oauth_clients::list(ctx, args).await,
        Command::ClientsCreate(args) => oauth_clients::create(ctx, args).await,
        Command::ClientsInfo(args) => oauth_clients::info(ctx, args).await,
        Command::ClientsUpdate(args) => oauth_clients::update(ctx, args).await,
        Command::ClientsRotate(args) => oauth_clients::rotate(ctx, args).await,
        Command::ClientsDestroy(args) => oauth_clients::destroy(ctx, args).await,
        Command::Sessions(args) => sessions::list(ctx, args).await,
        Command::SessionsDestroy(args) => sessions::destroy(ctx, args).await,
        Command::Authorizations(args) => authorizations::list(ctx, args).await,
        Command::AuthorizationsCreate(args) => authorizations::create(ctx, args).await,
        Command::AuthorizationsInfo(args) => authorizations::info(ctx, args).await,
        Command::AuthorizationsRevoke(args) => authorizations::revoke(ctx, args).await,
        Command::AuthorizationsRotate(args) => authorizations::rotate(ctx, args).await,
        Command::AuthorizationsUpdate(args) => authorizations::update(ctx, args).await,
        Command::AuthToken(args) => auth::token(ctx, args).await,
        Command::AuthWhoami(args) => auth::whoami(ctx, args).await,
        Command::Env(args) => auth::env(ctx, args).await,
        Command::Server(_)
        | Command::Down(_)
        | Command::Install(_)
        | Command::Uninstall(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Doctor(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Help(_)
        | Command::Version(_) => unreachable!("answered without a server"),
    }
    .map(|()| status::OK)
}
