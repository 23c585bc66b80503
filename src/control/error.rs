//! Why a use case did not do what was asked.
#![forbid(unsafe_code)]

use crate::domain::access::{Need, UnknownPermission};
use crate::domain::addon::AddonError;
use crate::domain::app::{AppName, AppNameError};
use crate::domain::drain::DrainUrlError;
use crate::domain::egress::EgressError;
use crate::domain::formation::FormationError;
use crate::domain::hostname::HostnameError;
use crate::domain::oauth::OauthError;
use crate::domain::pipeline::PipelineError;
use crate::domain::procfile::ProcessTypeError;
use crate::domain::release::ReleaseError;
use crate::domain::scope::{Scopes, UnknownScope};
use crate::store::StoreError;
use crate::supervisor::RunError;
use crate::supervisor::builds::BuildError;
use crate::tls::{PairError, TlsError};
use std::fmt;
use std::io;

/// What could not be found, in the words that clients compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    AddOn,
    AddOnAttachment,
    AddOnService,
    App,
    Authorization,
    Build,
    Buildpack,
    Collaborator,
    Domain,
    Dyno,
    DynoSize,
    Feature,
    Generation,
    Key,
    LogDrain,
    LogSession,
    OauthClient,
    Output,
    Pipeline,
    Plan,
    PipelineCoupling,
    PipelinePromotion,
    ProcessType,
    Region,
    Release,
    Runtime,
    Session,
    Slug,
    SniEndpoint,
    Source,
    Stack,
    Transfer,
    User,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            // With underscores and blanks as clients compare them.
            Self::AddOn => "add_on",
            Self::AddOnAttachment => "add_on attachment",
            Self::AddOnService => "add_on service",
            Self::App => "app",
            Self::Authorization => "authorization",
            Self::Build => "build",
            Self::Buildpack => "buildpack",
            Self::Collaborator => "collaborator",
            Self::Domain => "domain",
            Self::Dyno => "dyno",
            Self::DynoSize => "dyno size",
            Self::Feature => "feature",
            Self::Generation => "generation",
            Self::Key => "key",
            Self::LogDrain => "log drain",
            Self::LogSession => "log session",
            Self::OauthClient => "client",
            Self::Output => "output",
            Self::Pipeline => "pipeline",
            Self::Plan => "plan",
            Self::PipelinePromotion => "pipeline promotion",
            Self::PipelineCoupling => "pipeline coupling",
            Self::ProcessType => "process type",
            Self::Region => "region",
            Self::Release => "release",
            Self::Runtime => "runtime",
            Self::Session => "session",
            Self::Slug => "slug",
            Self::SniEndpoint => "sni endpoint",
            Self::Source => "source",
            Self::Stack => "stack",
            Self::Transfer => "app transfer",
            Self::User => "user",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("couldn't find that {0}")]
    NotFound(Resource),
    #[error("no valid token")]
    Denied,
    #[error("this token is for {has} and does not permit that")]
    Forbidden { has: Scopes },
    #[error("too many log-ins at once; try again in a moment")]
    Busy,
    #[error("too many wrong passwords; try again in {seconds} seconds")]
    TooManyGuesses { seconds: u64 },
    #[error("too many sources of yours wait to be built; build them, or try again when they have expired, in an hour")]
    TooManySources,
    #[error("that needs {need}")]
    Lacks { need: Need },
    #[error(transparent)]
    Permission(#[from] UnknownPermission),
    #[error(transparent)]
    Scope(#[from] UnknownScope),
    #[error("name {0} is already taken")]
    NameTaken(AppName),
    #[error(transparent)]
    AppName(#[from] AppNameError),
    #[error(transparent)]
    ProcessType(#[from] ProcessTypeError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Formation(#[from] FormationError),
    #[error(transparent)]
    Drain(#[from] DrainUrlError),
    #[error(transparent)]
    Hostname(#[from] HostnameError),
    #[error(transparent)]
    Certificate(#[from] PairError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Oauth(#[from] OauthError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Addon(#[from] AddonError),
    #[error(transparent)]
    Destination(#[from] EgressError),
    /// What a client sent that no other variant describes, as a sentence.
    #[error("{0}")]
    Invalid(String),
    /// It is too late, or something else is under way.
    #[error("{0}")]
    Conflict(String),
    #[error("the source is larger than {limit} bytes")]
    SourceTooLarge { limit: u64 },
    #[error("the checksum of the source is {found}, not {expected}")]
    Checksum { expected: String, found: String },
    #[error("the disk is full")]
    DiskFull,
    #[error("the upload broke off")]
    BrokenUpload,
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Build(BuildError),
    /// The kernel could not be told.
    #[error("what dynos may connect to was kept but does not hold yet, and none is started until it does: {0}")]
    Egress(String),
    #[error(transparent)]
    Store(StoreError),
    #[error("can't use the disk")]
    Io(#[from] io::Error),
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            // What the guard of a request has to say is one of ours.
            StoreError::Refused(refused) => refused
                .downcast::<Self>()
                .map_or_else(|other| Self::Store(StoreError::Refused(other)), |refused| *refused),
            error => Self::Store(error),
        }
    }
}

impl From<BuildError> for ControlError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Store(error) => error.into(),
            error => Self::Build(error),
        }
    }
}
