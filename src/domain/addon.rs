//! Add-ons: what an app uses and does not bring itself, such as a database. A provider makes it; apps have it by
//! attachments, each a name under which they find its config vars.
#![forbid(unsafe_code)]

use super::app::AppId;
use super::config_vars::ConfigVars;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Of a value that goes into an environment, in bytes.
const MOST_BYTES: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddonError {
    #[error("{0:?} is no name for an add-on: use 2 to 60 of a-z, 0-9 and dashes, beginning with a letter")]
    Name(String),
    #[error("{0:?} is no name for an attachment: use up to 60 of A-Z, 0-9 and underscores, beginning with a letter")]
    AttachmentName(String),
    #[error("there is no plan {plan}; {service} has {there}")]
    Plan { service: &'static str, plan: String, there: String },
    #[error("{0}")]
    Options(String),
}

/// An add-on's name, unique on the box.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddonName(String);

impl AddonName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AddonName {
    type Err = AddonError;
    fn from_str(text: &str) -> Result<Self, AddonError> {
        let fits = text.starts_with(|c: char| c.is_ascii_lowercase())
            && (2..=60).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if fits { Ok(Self(text.to_owned())) } else { Err(AddonError::Name(text.chars().take(80).collect())) }
    }
}

impl fmt::Display for AddonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an app calls an add-on: `DATABASE`, whose URL is in `DATABASE_URL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachmentName(String);

/// The longest name of an attachment, in characters.
const LONGEST: usize = 60;

impl AttachmentName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name itself, or the first of `NAME_2`, `NAME_3` … that is not `taken`.
    #[must_use]
    pub fn free(self, taken: impl Fn(&Self) -> bool) -> Self {
        let numbered = (2..).map(|number: u32| {
            let end = format!("_{number}");
            Self(self.0.chars().take(LONGEST - end.len()).collect::<String>() + &end)
        });
        std::iter::once(self.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(self)
    }
}

impl FromStr for AttachmentName {
    type Err = AddonError;
    /// Small letters and dashes are taken too, as clients write them.
    fn from_str(text: &str) -> Result<Self, AddonError> {
        let name = text.to_ascii_uppercase().replace('-', "_");
        let fits = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.len() <= LONGEST
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if fits { Ok(Self(name)) } else { Err(AddonError::AttachmentName(text.chars().take(80).collect())) }
    }
}

impl fmt::Display for AttachmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An add-on, with the values that its attachments put into config vars: `URL` for `NAME_URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addon {
    pub id: Uuid,
    /// The app it was made for and goes with.
    pub app: AppId,
    pub name: AddonName,
    /// `SERVICE:PLAN`
    pub plan: String,
    pub values: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Addon {
    pub fn service(&self) -> &str {
        self.plan.split(':').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub id: Uuid,
    pub addon: Uuid,
    /// The app that uses the add-on; not always the one that it was made for.
    pub app: AppId,
    pub name: AttachmentName,
    pub created_at: Timestamp,
}

impl Attachment {
    /// The config vars' names, in the order of their values in `addon`.
    pub fn vars<'a>(&'a self, addon: &'a Addon) -> impl Iterator<Item = (String, &'a str)> {
        addon.values.iter().map(|(key, value)| (format!("{}_{key}", self.name), value.as_str()))
    }

    /// As Heroku words it in descriptions of releases.
    pub fn describe(&self, verb: &str, addon: &Addon) -> String {
        format!("{verb} {} (@ref:{})", self.name, addon.name)
    }
}

/// All that an app's attachments bring.
pub fn attached<'a>(all: impl IntoIterator<Item = (&'a Attachment, &'a Addon)>) -> ConfigVars {
    let vars = all.into_iter().flat_map(|(attachment, addon)| attachment.vars(addon));
    vars.map(|(key, value)| (key, value.to_owned())).collect()
}

/// A plan that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub name: &'static str,
    pub description: &'static str,
}

/// What a provider offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    pub id: Uuid,
    pub name: &'static str,
    pub human_name: &'static str,
    /// The first is what one gets without asking for one.
    pub plans: &'static [Plan],
}

/// What a provider has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// For config vars, by the end of their names.
    pub values: BTreeMap<String, String>,
    /// What the first attachment is called when nobody says.
    pub suggested: AttachmentName,
    /// For whoever asked for it.
    pub message: &'static str,
}

/// Whoever makes add-ons of a service. What it does may take a while, and is done off the runtime's threads.
pub trait Provider: Send + Sync {
    fn service(&self) -> &'static Service;

    /// Makes one, with `options` as the client wrote them.
    ///
    /// # Errors
    /// When an option is missing or wrong, in a sentence that does not repeat its value.
    fn provision(&self, plan: &Plan, options: &BTreeMap<String, String>) -> Result<Provisioned, AddonError>;

    /// The values by other options, for one that it has made.
    ///
    /// # Errors
    /// As [`Provider::provision`].
    fn reconfigure(
        &self,
        addon: &Addon,
        options: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, AddonError>;

    /// Takes away what it made.
    ///
    /// # Errors
    /// When that can't be done now; the add-on then stays.
    fn deprovision(&self, addon: &Addon) -> Result<(), AddonError>;
}

/// Something that is there already, elsewhere: its URL becomes an add-on.
#[derive(Clone, Copy, Debug)]
pub struct External;

const EXTERNAL: Service = Service {
    id: Uuid::from_u128(0x686f_6b6b_752d_6164_8001_6578_7465_0001),
    name: "external",
    human_name: "External service",
    plans: &[Plan { name: "url", description: "A service that is there already, by its URL" }],
};

impl Provider for External {
    fn service(&self) -> &'static Service {
        &EXTERNAL
    }

    fn provision(&self, _: &Plan, options: &BTreeMap<String, String>) -> Result<Provisioned, AddonError> {
        let wrong = |text: &str| Err(AddonError::Options(text.to_owned()));
        if let Some(other) = options.keys().find(|key| *key != "url") {
            let other: String = other.chars().take(40).collect();
            return wrong(&format!("external has no option {other:?}, only url"));
        }
        let Some(url) = options.get("url") else {
            return wrong("say where it is, behind the command: -- --url postgres://USER:PASSWORD@HOST/NAME");
        };
        let scheme = url.split_once("://").filter(|(_, rest)| !rest.is_empty()).map(|(scheme, _)| scheme);
        let is_scheme = |scheme: &&str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let Some(scheme) = scheme.filter(is_scheme) else {
            return wrong("url has to be a URL such as postgres://USER:PASSWORD@HOST/NAME");
        };
        if url.len() > MOST_BYTES || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong("url has to be a URL without blanks, of at most 8 KiB");
        }
        let suggested = match scheme.to_ascii_lowercase().as_str() {
            "postgres" | "postgresql" | "mysql" | "mysql2" | "mariadb" | "sqlserver" => "DATABASE",
            "redis" | "rediss" | "valkey" => "REDIS",
            "mongodb" | "mongodb+srv" => "MONGODB",
            "amqp" | "amqps" => "AMQP",
            "smtp" | "smtps" => "SMTP",
            _ => "EXTERNAL",
        };
        Ok(Provisioned {
            values: [("URL".to_owned(), url.clone())].into(),
            suggested: AttachmentName(suggested.to_owned()),
            message: "It was not tried whether it answers. Dynos reach the box itself only at ports of [network] allow_host.",
        })
    }

    fn reconfigure(
        &self,
        _: &Addon,
        options: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, AddonError> {
        Ok(self.provision(&EXTERNAL.plans[0], options)?.values)
    }

    fn deprovision(&self, _: &Addon) -> Result<(), AddonError> {
        Ok(()) // It goes on without us.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_url_becomes_values_and_a_name_and_no_error_repeats_it() {
        for (url, name) in [
            ("postgres://u:p@h/d", "DATABASE"),
            ("REDISS://h", "REDIS"),
            ("https://h/x", "EXTERNAL"),
            ("mongodb+srv://h", "MONGODB"),
        ] {
            let made = External.provision(&EXTERNAL.plans[0], &options(&[("url", url)])).unwrap();
            assert_eq!((made.suggested.as_str(), made.values["URL"].as_str()), (name, url));
        }
        for wrong in ["", "secret", "://secret", "postgres://", "9p://secret", "a://se cret", "a://secret\n"] {
            let error = External.provision(&EXTERNAL.plans[0], &options(&[("url", wrong)])).unwrap_err().to_string();
            assert!(error.contains("url") && !error.contains("secret"), "{wrong:?}: {error}");
        }
        assert!(External.provision(&EXTERNAL.plans[0], &options(&[])).is_err());
        assert!(External.provision(&EXTERNAL.plans[0], &options(&[("url", "a://b"), ("size", "1")])).is_err());
    }

    #[test]
    fn names_of_attachments_are_as_config_vars_are() {
        assert_eq!("my-db".parse::<AttachmentName>().unwrap().as_str(), "MY_DB");
        for wrong in ["", "1A", "_A", "A B", "Ä", &"A".repeat(61)] {
            assert!(wrong.parse::<AttachmentName>().is_err(), "{wrong}");
        }
        let name: AttachmentName = "DATABASE".parse().unwrap();
        assert_eq!(name.clone().free(|_| false).as_str(), "DATABASE");
        let taken = ["DATABASE", "DATABASE_2"];
        assert_eq!(name.free(|name| taken.contains(&name.as_str())).as_str(), "DATABASE_3");
        for wrong in ["", "a", "A-b", "-ab", "a_b", &"a".repeat(61)] {
            assert!(wrong.parse::<AddonName>().is_err(), "{wrong}");
        }
    }
}
