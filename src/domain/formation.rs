//! The formation: how many dynos of which size each process type has.
#![forbid(unsafe_code)]

use super::limits::DynoSize;
use super::procfile::{ProcessType, ProcessTypes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Dynos of one process type (Heroku's limit).
pub const MAX_QUANTITY: u32 = 100;

/// What is wanted of one process type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    pub quantity: u32,
    pub size: DynoSize,
}

/// Process type → scale, for the types of the current slug.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Formation(pub BTreeMap<ProcessType, Scale>);

/// A quantity as clients write it: `2`, `+1`, `-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Set(u32),
    Add(i64),
}

/// One row of a scaling request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub kind: ProcessType,
    pub quantity: Option<Quantity>,
    pub size: Option<DynoSize>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    #[error("{0:?} is not a quantity; write a number, or +1 or -1 to change it")]
    Quantity(String),
    #[error("Couldn't find that process type: {0}.")]
    UnknownType(ProcessType),
    #[error("{kind} can't be scaled to {wanted}; a process type has 0 to {MAX_QUANTITY} dynos")]
    Range { kind: ProcessType, wanted: i64 },
    #[error("{0} is there twice; give each process type once")]
    Twice(ProcessType),
    #[error("the release phase runs once for each release and can't be scaled")]
    Release,
}

impl Quantity {
    /// # Errors
    /// When the text is not a whole number with an optional sign.
    pub fn parse(text: &str) -> Result<Self, FormationError> {
        let wrong = || FormationError::Quantity(text.to_owned());
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        Ok(match text.as_bytes()[0] {
            b'+' => Self::Add(i64::from(number)),
            b'-' => Self::Add(-i64::from(number)),
            _ => Self::Set(number),
        })
    }
}

impl Formation {
    /// The formation for a slug with these process types: known types keep their scale, new ones begin at 0, vanished
    /// ones go; on an app's first deploy `web` begins at 1 (Heroku's rule).
    #[must_use]
    pub fn adapt(&self, types: &ProcessTypes, first_deploy: bool) -> Self {
        let scale = |kind: &ProcessType| {
            self.0
                .get(kind)
                .copied()
                .unwrap_or(Scale { quantity: u32::from(first_deploy && kind.is_web()), size: DynoSize::default() })
        };
        Self(types.keys().map(|kind| (kind.clone(), scale(kind))).collect())
    }

    /// # Errors
    /// When a row names an unknown type, one that another row names, or an impossible quantity; then nothing is changed.
    pub fn update(&self, updates: &[Update]) -> Result<Self, FormationError> {
        let mut next = self.clone();
        for (index, update) in updates.iter().enumerate() {
            if updates[..index].iter().any(|earlier| earlier.kind == update.kind) {
                return Err(FormationError::Twice(update.kind.clone()));
            }
            let scale = next.0.get_mut(&update.kind).ok_or_else(|| FormationError::UnknownType(update.kind.clone()))?;
            let wanted = match update.quantity {
                None => i64::from(scale.quantity),
                Some(Quantity::Set(n)) => i64::from(n),
                Some(Quantity::Add(n)) => (i64::from(scale.quantity) + n).max(0),
            };
            if update.kind.is_release() && wanted != 0 {
                return Err(FormationError::Release);
            }
            scale.quantity = u32::try_from(wanted)
                .ok()
                .filter(|n| *n <= MAX_QUANTITY)
                .ok_or(FormationError::Range { kind: update.kind.clone(), wanted })?;
            scale.size = update.size.unwrap_or(scale.size);
        }
        Ok(next)
    }

    pub fn quantity(&self, kind: &ProcessType) -> u32 {
        self.0.get(kind).map_or(0, |scale| scale.quantity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(names: &[&str]) -> ProcessTypes {
        names.iter().map(|name| (ProcessType::parse(name).unwrap(), "x".to_owned())).collect()
    }

    fn row(kind: &str, quantity: &str) -> Update {
        Update {
            kind: ProcessType::parse(kind).unwrap(),
            quantity: Some(Quantity::parse(quantity).unwrap()),
            size: None,
        }
    }

    #[test]
    fn the_first_deploy_starts_web_and_later_ones_keep_what_was_set() {
        let first = Formation::default().adapt(&types(&["web", "worker"]), true);
        assert_eq!((first.quantity(&ProcessType::web()), first.0.len()), (1, 2));
        let scaled = first.update(&[row("web", "3"), row("worker", "+2")]).unwrap();
        let next = scaled.adapt(&types(&["web", "clock"]), false);
        assert_eq!((next.quantity(&ProcessType::web()), next.0.len()), (3, 2));
        assert_eq!(next.quantity(&ProcessType::parse("clock").unwrap()), 0);
    }

    #[test]
    fn wrong_rows_are_refused() {
        let formation = Formation::default().adapt(&types(&["web", "release"]), true);
        assert!(matches!(formation.update(&[row("nope", "1")]), Err(FormationError::UnknownType(_))));
        assert!(matches!(formation.update(&[row("web", "101")]), Err(FormationError::Range { .. })));
        assert!(matches!(formation.update(&[row("release", "1")]), Err(FormationError::Release)));
        assert!(matches!(formation.update(&[row("web", "1"), row("web", "2")]), Err(FormationError::Twice(_))));
        assert_eq!(formation.update(&[row("web", "-5")]).unwrap().quantity(&ProcessType::web()), 0);
        for bad in ["", "x", "+", "--1", "1.5", "99999999999"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }
}
