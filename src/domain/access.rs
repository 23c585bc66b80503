//! Who may do what: how an account stands to an app, what a request needs there, and the verdict.
//!
//! ```text
//!  route ─▶ Need ─┐
//!                 ├─▶ verdict ─▶ go on · 403 · 404, as if it were not there
//!  account ─▶ Role┘
//! ```
#![forbid(unsafe_code)]

use super::actor::Actor;
use std::fmt;
use std::str::FromStr;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub actor: Actor,
    /// May everything on this instance.
    pub admin: bool,
}

/// What a collaborator may do with an app, in Heroku's words; none but `view` includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// See the app, its dynos, releases, builds and logs.
    View,
    /// See and change code and config vars, and run commands in the app.
    Deploy,
    /// Scale, restart, rename; domains, certificates, drains, add-ons, egress.
    Operate,
    /// Say who else may, and destroy the app.
    Manage,
}

impl Permission {
    pub const ALL: [Self; 4] = [Self::View, Self::Deploy, Self::Operate, Self::Manage];

    pub fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Deploy => "deploy",
            Self::Operate => "operate",
            Self::Manage => "manage",
        }
    }

    /// A sentence for lists.
    pub fn description(self) -> &'static str {
        match self {
            Self::View => "Can see the app, its dynos, releases, builds and logs",
            Self::Deploy => "Can deploy, see and set config vars, and run commands",
            Self::Operate => "Can scale, restart and configure everything around the code",
            Self::Manage => "Can give others access and destroy the app",
        }
    }
}

/// A collaborator's permissions; `view` is always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions(Vec<Permission>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission {0:?}; use view, deploy, operate or manage")]
pub struct UnknownPermission(String);

impl Default for Permissions {
    /// What a collaborator of a personal app has on Heroku: everything but to manage.
    fn default() -> Self {
        Self(vec![Permission::View, Permission::Deploy, Permission::Operate])
    }
}

impl Permissions {
    /// # Errors
    /// When a word is no permission.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownPermission> {
        let known = |word: &str| Permission::ALL.into_iter().find(|permission| permission.word() == word);
        let found =
            words.into_iter().map(|word| known(word).ok_or_else(|| UnknownPermission(word.chars().take(40).collect())));
        let mut permissions = found.collect::<Result<Vec<_>, _>>()?;
        permissions.push(Permission::View);
        permissions.sort_unstable();
        permissions.dedup();
        Ok(Self(permissions))
    }

    pub fn only_view() -> Self {
        Self(vec![Permission::View])
    }

    pub fn has(&self, permission: Permission) -> bool {
        self.0.contains(&permission)
    }

    pub fn iter(&self) -> impl Iterator<Item = Permission> + '_ {
        self.0.iter().copied()
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "an account",
            Self::On(Permission::View) => "the permission to view the app",
            Self::On(Permission::Deploy) => "the permission to deploy to the app",
            Self::On(Permission::Operate) => "the permission to operate the app",
            Self::On(Permission::Manage) => "the permission to manage the app",
            Self::Admin => "an administrator",
        })
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Permission::word).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Permissions {
    type Err = UnknownPermission;
    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        Self::parse(text.split(','))
    }
}

/// How an account stands to an app, or to what belongs to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Admin,
    Owner,
    Collaborator(Permissions),
    Stranger,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An account, whichever; what it then sees is its own.
    Account,
    /// A permission on what the path names.
    On(Permission),
    /// An administrator: it concerns the whole box.
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    May,
    /// It can be seen, but not that done to it.
    MayNot,
    /// It is not there for this account.
    Hidden,
}

/// Who may do what. For [`Need::Account`] and [`Need::Admin`] the role is the one on the box: admin or stranger.
pub fn verdict(role: &Role, need: Need) -> Verdict {
    match (role, need) {
        (Role::Admin, _) | (_, Need::Account) | (Role::Owner, Need::On(_)) => Verdict::May,
        (Role::Collaborator(permissions), Need::On(permission)) if permissions.has(permission) => Verdict::May,
        (Role::Collaborator(_), Need::On(_)) | (_, Need::Admin) => Verdict::MayNot,
        (Role::Stranger, Need::On(_)) => Verdict::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_verdict_for_every_need() {
        let roles = [
            ("admin", Role::Admin),
            ("owner", Role::Owner),
            ("manage", Role::Collaborator("manage".parse().unwrap())),
            ("operate", Role::Collaborator("operate".parse().unwrap())),
            ("deploy", Role::Collaborator("deploy".parse().unwrap())),
            ("view", Role::Collaborator("view".parse().unwrap())),
            ("stranger", Role::Stranger),
        ];
        let needs = [Need::Account, Need::Admin].into_iter().chain(Permission::ALL.map(Need::On));
        let letter = |verdict| match verdict {
            Verdict::May => 'y',
            Verdict::MayNot => 'n',
            Verdict::Hidden => '-',
        };
        let needs: Vec<Need> = needs.collect();
        let rows: Vec<String> = roles
            .iter()
            .map(|(name, role)| {
                format!("{name} {}", needs.iter().map(|need| letter(verdict(role, *need))).collect::<String>())
            })
            .collect();
        // Account, admin, view, deploy, operate, manage.
        assert_eq!(
            rows,
            [
                "admin yyyyyy",
                "owner ynyyyy",
                "manage ynynny",
                "operate ynynyn",
                "deploy ynyynn",
                "view ynynnn",
                "stranger yn----",
            ]
        );
    }

    #[test]
    fn permissions_are_words_and_include_to_view() {
        assert_eq!("operate,deploy,deploy".parse::<Permissions>().unwrap().to_string(), "view,deploy,operate");
        assert_eq!(Permissions::parse([]).unwrap().to_string(), "view");
        assert_eq!(Permissions::default().to_string(), "view,deploy,operate");
        assert!("view,all".parse::<Permissions>().is_err());
    }
}
