//! `/addons`, `/addon-attachments`, `/addon-services`, `/plans`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::platform::{EPOCH, generation_reference};
use super::request::{At, Input, Made, Note, Noted, Segments, Which, note, time};
use super::{account, paging};
use crate::control::access::{self, Subject, Visible};
use crate::control::addons::{self, AddonPatch, AddonView, AttachmentView, NewAddon, Of};
use crate::control::{Control, Resource};
use crate::domain::access::{Caller, Permission};
use crate::domain::actor::Actor;
use crate::domain::addon::{Plan, Service};
use crate::domain::app::AppId;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/addon-services", get(services))
        .route("/addon-services/{service}", get(service))
        .route("/addon-services/{service}/plans", get(plans))
        .route("/addon-services/{service}/plans/{plan}", get(plan))
        .route("/plans/{plan}", get(any_plan))
        .route("/addons", get(list))
        .route("/addons/{addon}", get(info))
        .route("/addons/{addon}/config", get(config))
        .route("/addons/{addon}/addon-attachments", get(attachments_of))
        .route("/users/{user}/addons", get(list_of_user))
        .route("/apps/{app}/addons", get(list_of_app).post(create))
        .route("/apps/{app}/addons/{addon}", get(info_of_app).patch(update).delete(destroy))
        .route("/apps/{app}/addon-attachments", get(attachments_of_app))
        .route("/apps/{app}/addon-attachments/{attachment}", get(attachment_of_app))
        .route("/addon-attachments", get(attachments).post(attach))
        .route("/addon-attachments/{attachment}", get(attachment).delete(detach))
        .route("/actions/addons/resolve", post(resolve))
        .route("/actions/addon-attachments/resolve", post(resolve_attachment))
}

// ---- what can be had ----

/// A plan's id is the service's with its number.
fn plan_id(service: &Service, plan: &Plan) -> Uuid {
    let number = service.plans.iter().position(|known| known == plan).unwrap_or_default();
    Uuid::from_u128(service.id.as_u128() + 1 + number as u128)
}

fn service_row(service: &Service) -> Value {
    json!({
        "cli_plugin_name": null,
        "created_at": EPOCH,
        "human_name": service.human_name,
        "id": service.id,
        "name": service.name,
        "state": "ga",
        "supported_generations": [generation_reference()],
        "supports_multiple_installations": true,
        "supports_sharing": true,
        "updated_at": EPOCH,
    })
}

fn plan_row(service: &Service, plan: &Plan) -> Value {
    json!({
        "addon_service": { "id": service.id, "name": service.name },
        "compliance": null,
        "created_at": EPOCH,
        "default": service.plans.first() == Some(plan),
        "description": plan.description,
        "human_name": plan.description,
        "id": plan_id(service, plan),
        "installable_inside_private_network": false,
        "installable_outside_private_network": true,
        "name": format!("{}:{}", service.name, plan.name),
        "price": { "cents": 0, "contract": false, "metered": false, "unit": "month" },
        "space_default": false,
        "state": "ga",
        "updated_at": EPOCH,
        "visible": true,
    })
}

async fn services(headers: HeaderMap) -> ApiResult<Response> {
    paging::page(&headers, addons::services().map(service_row).collect(), &["name", "id"])
}

async fn service(path: Segments) -> ApiResult<Json<Value>> {
    Ok(Json(service_row(addons::service(path.get("service"))?)))
}

async fn plans(path: Segments, headers: HeaderMap) -> ApiResult<Response> {
    let service = addons::service(path.get("service"))?;
    paging::page(&headers, service.plans.iter().map(|plan| plan_row(service, plan)).collect(), &["name", "id"])
}

async fn plan(path: Segments) -> ApiResult<Json<Value>> {
    named_plan([addons::service(path.get("service"))?], path.get("plan"))
}

async fn any_plan(path: Segments) -> ApiResult<Json<Value>> {
    named_plan(addons::services(), path.get("plan"))
}

/// By `SERVICE:PLAN`, `PLAN` or id.
fn named_plan(services: impl IntoIterator<Item = &'static Service>, which: &str) -> ApiResult<Json<Value>> {
    let rows = services
        .into_iter()
        .flat_map(|service| service.plans.iter().map(move |plan| (plan.name, plan_row(service, plan))));
    let found = rows.into_iter().find(|(name, row)| *name == which || row["name"] == which || row["id"] == which);
    found.map(|(_, row)| Json(row)).ok_or_else(|| ApiError::not_found(Resource::Plan))
}

// ---- add-ons ----

/// Whether a client wants `what` in full, by `Accept-Expansion` or `Accept-Inclusion`.
fn wants(headers: &HeaderMap, header: &str, what: &str) -> bool {
    let words = headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default();
    words.split(',').any(|word| word.trim() == what)
}

fn serialize(view: &AddonView, headers: &HeaderMap) -> Value {
    let AddonView { addon, app, attachments } = view;
    let known = addons::service(addon.service()).ok();
    let plan = known.and_then(|service| {
        let plan = service.plans.iter().find(|plan| addon.plan == format!("{}:{}", service.name, plan.name))?;
        Some((service, plan))
    });
    let in_full = |what: &str| wants(headers, "accept-expansion", what);
    let plan_row = plan.map(|(service, plan)| plan_row(service, plan)).unwrap_or_default();
    let service_row = known.map(service_row).unwrap_or_default();
    // Of the app that it was made for.
    let vars = attachments.iter().filter(|attachment| attachment.app == addon.app);
    let vars: Vec<String> = vars.flat_map(|attachment| attachment.vars(addon)).map(|(key, _)| key).collect();
    json!({
        "actions": [],
        "addon_service": if in_full("addon_service") { service_row.clone() } else {
            json!({ "id": service_row["id"], "name": addon.service() })
        },
        "app": { "id": addon.app, "name": app },
        "billed_price": { "cents": 0, "contract": false, "unit": "month" },
        "billing_entity": { "id": addon.app, "name": app, "type": "app" },
        "config_vars": vars,
        "created_at": time(addon.created_at),
        "id": addon.id,
        "name": addon.name.as_str(),
        "plan": if in_full("plan") { plan_row.clone() } else { json!({ "id": plan_row["id"], "name": addon.plan }) },
        "provider_id": addon.id,
        "provision_message": "",
        "state": "provisioned",
        "updated_at": time(addon.updated_at),
        "web_url": null,
    })
}

async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let visible = access::visible(&control, &caller).await?;
    page_of(&control, &visible, &headers).await
}

async fn page_of(control: &Control, visible: &Visible, headers: &HeaderMap) -> ApiResult<Response> {
    let mut views = addons::list(control, None).await?;
    views.retain(|view| visible.has(view.addon.app));
    paging::page(headers, views.iter().map(|view| serialize(view, headers)).collect(), &["name", "id"])
}

async fn list_of_user(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Response> {
    account::check_user(&actor, path.get("user"))?;
    page_of(&control, &access::own(&control, actor.id).await?, &headers).await
}

async fn list_of_app(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let views = addons::list(&control, Some(at.app.id)).await?;
    paging::page(&headers, views.iter().map(|view| serialize(view, &headers)).collect(), &["name", "id"])
}

async fn info(State(control): State<Control>, path: Segments, headers: HeaderMap) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&addons::find(&control, None, path.get("addon")).await?, &headers)))
}

async fn info_of_app(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&of_app(&control, &at).await?, &headers)))
}

/// One that the app has, whosever it is.
async fn of_app(control: &Control, at: &At) -> ApiResult<AddonView> {
    let view = addons::find(control, Some(at.app.id), at.path.get("addon")).await?;
    let uses = |app: AppId| view.addon.app == app || view.attachments.iter().any(|attachment| attachment.app == app);
    if uses(at.app.id) { Ok(view) } else { Err(ApiError::not_found(Resource::AddOn)) }
}

/// The values, by the end of their config vars' names.
async fn config(State(control): State<Control>, path: Segments) -> ApiResult<Json<Value>> {
    let view = addons::find(&control, None, path.get("addon")).await?;
    let rows = view.addon.values.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    Ok(Json(rows.collect()))
}

#[derive(Debug, Deserialize)]
struct Create {
    plan: Which,
    name: Option<String>,
    attachment: Option<Named>,
    config: Option<BTreeMap<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: Option<String>,
}

fn options(config: BTreeMap<String, Value>) -> ApiResult<BTreeMap<String, String>> {
    let option = |(key, value): (String, Value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Bool(_) | Value::Number(_) => Ok((key, value.to_string())),
        _ => Err(ApiError::invalid(format!("The option {key} has to be a text."))),
    };
    config.into_iter().map(option).collect()
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    headers: HeaderMap,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let new = NewAddon {
        plan: body.plan.text().to_owned(),
        name: body.name,
        attachment: body.attachment.and_then(|attachment| attachment.name),
        options: options(body.config.unwrap_or_default())?,
    };
    let (view, message) = addons::create(&control, &actor, &at.app, new).await?;
    let mut row = serialize(&view, &headers);
    row["provision_message"] = message.into();
    let note = format!("{}, {}", view.addon.name, view.addon.plan);
    Ok((StatusCode::CREATED, Extension(Note(note)), Json(row)))
}

/// `config` is our own: Heroku's plans have no options that change.
#[derive(Debug, Deserialize)]
struct Update {
    name: Option<String>,
    plan: Option<Which>,
    config: Option<BTreeMap<String, Value>>,
}

async fn update(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    headers: HeaderMap,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let view = of_app(&control, &at).await?;
    // It may be another app's that this one uses.
    access::check(&control, &caller, Subject::Addon(view.addon.id.to_string()), Permission::Operate).await?;
    if let Some(plan) = body.plan.filter(|plan| plan.text() != view.addon.plan) {
        let plan: String = plan.text().chars().take(60).collect();
        return Err(ApiError::invalid(format!(
            "{} can't become {plan:?}: make a new add-on of that plan.",
            view.addon.name
        )));
    }
    let renamed = body.name.as_ref().map(|name| format!("named {name}"));
    let changed = body.config.as_ref().map(|config| config.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    let what = renamed.into_iter().chain(changed).collect::<Vec<_>>().join("; ");
    let noted = note(format!("{}: {what}", view.addon.name));
    let patch = AddonPatch { name: body.name, options: body.config.map(options).transpose()? };
    let view = addons::update(&control, &caller.actor, &view.addon.id.to_string(), patch).await?;
    Ok((noted, Json(serialize(&view, &headers))))
}

#[derive(Debug, Deserialize)]
struct Destroy {
    #[serde(default)]
    force: bool,
}

async fn destroy(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    headers: HeaderMap,
    Input(body): Input<Destroy>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let view = of_app(&control, &at).await?;
    if view.addon.app != at.app.id {
        return Err(ApiError::invalid(format!(
            "{} was made for {}; here it can only be detached.",
            view.addon.name, view.app
        )));
    }
    let gone = addons::destroy(&control, &caller, None, &view.addon.id.to_string(), body.force).await?;
    let mut row = serialize(&gone, &headers);
    row["state"] = "deprovisioned".into();
    Ok((Extension(Note(gone.addon.name.to_string())), Json(row)))
}

#[derive(Debug, Deserialize)]
struct Resolve {
    addon: Option<String>,
    addon_attachment: Option<String>,
    app: Option<String>,
    addon_service: Option<String>,
}

impl Resolve {
    async fn app(&self, control: &Control, caller: &Caller) -> ApiResult<Option<AppId>> {
        match &self.app {
            Some(app) => Ok(Some(access::app(control, caller, app, Permission::View).await?.id)),
            None => Ok(None),
        }
    }

    fn fits(&self, service: &str) -> bool {
        self.addon_service.as_ref().is_none_or(|wanted| wanted == service)
    }
}

async fn resolve(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Input(body): Input<Resolve>,
) -> ApiResult<Json<Value>> {
    let Some(which) = &body.addon else { return Err(ApiError::bad_request("Say which addon.")) };
    let view = addons::find(&control, body.app(&control, &caller).await?, which).await?;
    access::check(&control, &caller, Subject::Addon(view.addon.id.to_string()), Permission::View).await?;
    if !body.fits(view.addon.service()) {
        return Err(ApiError::not_found(Resource::AddOn));
    }
    Ok(Json(json!([serialize(&view, &headers)])))
}

// ---- attachments ----

fn attachment_row(view: &AttachmentView, headers: &HeaderMap) -> Value {
    let AttachmentView { attachment, app, addon, owner } = view;
    let mut row = json!({
        "addon": { "app": { "id": addon.app, "name": owner }, "id": addon.id, "name": addon.name.as_str() },
        "app": { "id": attachment.app, "name": app },
        "created_at": time(attachment.created_at),
        "id": attachment.id,
        "log_input_url": null,
        "name": attachment.name.as_str(),
        "namespace": null,
        "updated_at": time(attachment.created_at),
        "web_url": null,
    });
    if wants(headers, "accept-inclusion", "addon:plan") {
        row["addon"]["plan"] = json!({ "name": addon.plan });
    }
    if wants(headers, "accept-inclusion", "config_vars") {
        row["config_vars"] = attachment.vars(addon).map(|(key, _)| key).collect();
    }
    row
}

/// Those on apps that the caller sees.
async fn page(control: &Control, caller: &Caller, headers: &HeaderMap, of: Of) -> ApiResult<Response> {
    let visible = access::visible(control, caller).await?;
    let mut rows = addons::attachments(control, of).await?;
    rows.retain(|row| visible.has(row.attachment.app));
    paging::page(headers, rows.iter().map(|row| attachment_row(row, headers)).collect(), &["name", "id"])
}

async fn attachments(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    page(&control, &caller, &headers, Of::All).await
}

async fn attachments_of_app(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    headers: HeaderMap,
) -> ApiResult<Response> {
    page(&control, &caller, &headers, Of::App(at.app.id)).await
}

async fn attachments_of(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let view = addons::find(&control, None, path.get("addon")).await?;
    page(&control, &caller, &headers, Of::Addon(view.addon.id)).await
}

async fn attachment(State(control): State<Control>, path: Segments, headers: HeaderMap) -> ApiResult<Json<Value>> {
    Ok(Json(attachment_row(&addons::attachment(&control, None, path.get("attachment")).await?, &headers)))
}

async fn attachment_of_app(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Json<Value>> {
    let view = addons::attachment(&control, Some(at.app.id), at.path.get("attachment")).await?;
    Ok(Json(attachment_row(&view, &headers)))
}

#[derive(Debug, Deserialize)]
struct Attach {
    addon: Which,
    app: Which,
    name: Option<String>,
}

fn noted<T>(view: &AttachmentView, what: T) -> Noted<T> {
    let note = format!("{} as {}", view.addon.name, view.attachment.name);
    (Extension(Note(note)), Extension(Made(view.attachment.app)), what)
}

async fn attach(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Input(body): Input<Attach>,
) -> ApiResult<(StatusCode, Noted<Json<Value>>)> {
    let view = addons::attach(&control, &caller, body.addon.text(), body.app.text(), body.name.as_deref()).await?;
    Ok((StatusCode::CREATED, noted(&view, Json(attachment_row(&view, &headers)))))
}

async fn detach(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Noted<Json<Value>>> {
    let found = addons::attachment(&control, None, path.get("attachment")).await?;
    let gone = addons::detach(&control, &actor, found.attachment.id).await?;
    Ok(noted(&gone, Json(attachment_row(&gone, &headers))))
}

async fn resolve_attachment(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Input(body): Input<Resolve>,
) -> ApiResult<Json<Value>> {
    let Some(which) = &body.addon_attachment else {
        return Err(ApiError::bad_request("Say which addon_attachment."));
    };
    let view = addons::attachment(&control, body.app(&control, &caller).await?, which).await?;
    let subject = Subject::Attachment(view.attachment.id.to_string());
    access::check(&control, &caller, subject, Permission::View).await?;
    if !body.fits(view.addon.service()) {
        return Err(ApiError::not_found(Resource::AddOnAttachment));
    }
    Ok(Json(json!([attachment_row(&view, &headers)])))
}
