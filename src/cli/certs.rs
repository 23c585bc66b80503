//! `certs`: certificates of an app's own.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn path(app: &str, name: &str) -> String {
    Context::path(app, &format!("/sni-endpoints/{}", segment(name)))
}

async fn rows(ctx: &Context, app: &str) -> Result<Vec<Value>, Failure> {
    Ok(ctx.client()?.list(&Context::path(app, "/sni-endpoints")).await?)
}

/// The one that is named, or the only one.
async fn chosen(ctx: &Context, app: &str, name: Option<&str>) -> Result<Value, Failure> {
    if let Some(name) = name {
        return Ok(ctx.client()?.get(&path(app, name)).await?);
    }
    let mut rows = rows(ctx, app).await?;
    match (rows.pop(), rows.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => {
            Err(Failure::new(format!("{app} has no certificates.")).hint("Add one with: hokku certs:add CRT KEY"))
        }
        (Some(_), false) => {
            Err(Failure::usage(format!("{app} has several certificates; choose one by --name")).hint("hokku certs"))
        }
    }
}

fn names(row: &Value) -> String {
    let names = row["ssl_cert"]["cert_domains"].as_array();
    names.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or_default()
}

fn details(ctx: &Context, row: &Value) -> Result<(), Failure> {
    let cert = &row["ssl_cert"];
    ctx.out.pairs([
        ("Name", text(row, "name").to_owned()),
        ("Common Name(s)", names(row)),
        ("Subject", text(cert, "subject").to_owned()),
        ("Issuer", text(cert, "issuer").to_owned()),
        ("Starts At", text(cert, "starts_at").to_owned()),
        ("Expires At", text(cert, "expires_at").to_owned()),
        ("Domains", row["domains"].as_array().map_or(0, Vec::len).to_string()),
    ])?;
    ctx.out.line(match (cert["ca_signed?"] == true, cert["self_signed?"] == true) {
        (true, _) => "It is vouched for by an authority that this server trusts.",
        (false, true) => "It is self-signed.",
        (false, false) => "It is vouched for by an authority that this server does not trust.",
    })
}

/// List the certificates of an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku certs
  === my-app Certificates

  quiet-harbor-48213  www.example.com  until 2027-03-01")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let rows = rows(ctx, &app).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    if rows.is_empty() {
        ctx.out.say(format_args!("{} has no certificates. Add one with: hokku certs:add CRT KEY", plain(&app)));
        return Ok(());
    }
    ctx.out.heading(format_args!("{} Certificates", plain(&app)))?;
    rows.iter().try_for_each(|row| {
        let until = day(text(&row["ssl_cert"], "expires_at"));
        ctx.out.line(format_args!("{}  {}  until {}", plain(text(row, "name")), plain(&names(row)), plain(until)))
    })
}

/// Add a certificate to an app
///
/// From then on it is shown for those of the app's domains that it is for and that have no other. Takes PEM: a file with
/// the certificate and whoever vouches for it, in any order, and a file with the private key, which is kept sealed and
/// never shown again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku certs:add www.example.com.crt www.example.com.key
  Adding a certificate to ⬢ my-app... done")]
pub(super) struct Add {
    /// File with the certificate chain
    #[arg(value_name = "CRT")]
    chain: PathBuf,
    /// File with the private key
    #[arg(value_name = "KEY")]
    key: PathBuf,
    #[command(flatten)]
    app: AppArgs,
}

fn body(chain: &Path, key: &Path) -> Result<Value, Failure> {
    let read = |file: &Path| {
        std::fs::read_to_string(file)
            .map_err(|error| Failure::local(format_args!("can't read {}", file.display()), &error))
    };
    Ok(json!({ "certificate_chain": read(chain)?, "private_key": read(key)? }))
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let body = body(&args.chain, &args.key)?;
    let progress = ctx.out.start(format_args!("Adding a certificate to {}", ctx.out.app(&app)));
    let made: Value = client.post(&Context::path(&app, "/sni-endpoints"), &body).await?;
    progress.done("done");
    details(ctx, &made)
}

/// Show a certificate
#[derive(Args, Debug)]
pub(super) struct Info {
    /// Which, when there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let row = chosen(ctx, &app, args.name.as_deref()).await?;
    if args.json { ctx.out.json(&row) } else { details(ctx, &row) }
}

/// Put another certificate in the place of one
///
/// New connections are shown it at once; those there are stay. Domains that it is not for lose it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku certs:update renewed.crt renewed.key")]
pub(super) struct Update {
    /// File with the certificate chain
    #[arg(value_name = "CRT")]
    chain: PathBuf,
    /// File with the private key
    #[arg(value_name = "KEY")]
    key: PathBuf,
    /// Which, when there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let body = body(&args.chain, &args.key)?;
    let row = chosen(ctx, &app, args.name.as_deref()).await?;
    let name = text(&row, "name");
    let progress = ctx.out.start(format_args!("Updating the certificate {} of {}", plain(name), ctx.out.app(&app)));
    let made: Value = client.patch(&path(&app, name), &body).await?;
    progress.done("done");
    details(ctx, &made)
}

/// Remove a certificate
///
/// Its domains are shown the instance's own then, which clients trust that know the server's ca.pem.
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Which, when there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let row = chosen(ctx, &app, args.name.as_deref()).await?;
    let name = text(&row, "name");
    let progress = ctx.out.start(format_args!("Removing the certificate {} from {}", plain(name), ctx.out.app(&app)));
    client.delete::<Value>(&path(&app, name)).await?;
    progress.done("done");
    Ok(())
}
