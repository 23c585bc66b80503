//! What a build stands on: its app's stack, with the layers of the languages that it turns out to need.
#![forbid(unsafe_code)]

use super::job::{Known, Prepared};
use super::report::Failure;
use super::{Inner, Ticket};
use crate::build::compile::Phase;
use crate::build::{Stage, languages, outcome};
use crate::domain::stack::{Language, Layer, StackName};
use crate::stack::{Origin, Stack};
use std::sync::Arc;

/// What a build runs on, and its dynos later.
pub(super) struct Ground {
    pub(super) stack: Arc<Stack>,
    pub(super) languages: Vec<Language>,
    /// What is left to be done on it.
    pub(super) phase: Phase,
}

impl Inner {
    /// The stack's name for people: on `host`, which system that is.
    pub(super) fn stack_id(&self, name: StackName) -> String {
        match name {
            StackName::Host => self.parts.stacks.host().id.clone(),
            StackName::Debian13 => name.to_string(),
        }
    }

    /// Makes the layers that are missing. Which ones is known when the buildpack is: detection runs before, by the same
    /// driver on the base alone. On `host` everything is there, and driver and buildpack run in one go.
    pub(super) async fn ground(
        &self,
        ticket: &Ticket,
        stage: &Stage,
        prepared: &Prepared,
        known: &Known,
    ) -> Result<Ground, Failure> {
        let choice = &prepared.choice;
        let name = prepared.stack;
        if name == StackName::Host {
            let stack = Arc::clone(self.parts.stacks.host());
            return Ok(Ground { stack, languages: Vec::new(), phase: Phase::Whole });
        }
        let (taking_part, phase) = if choice.detect {
            self.make_layers(ticket, &[]).await?;
            let stack = self.parts.stacks.get(name, &[], false)?;
            let base = Ground { stack, languages: Vec::new(), phase: Phase::Detect };
            self.run(ticket, stage, prepared, known, &base).await?;
            ticket.alive()?;
            let detected = outcome::detected(stage, choice)?;
            (&choice.packs[detected..=detected], Phase::Chosen)
        } else {
            (&choice.packs[..], Phase::Whole)
        };
        let present = self.parts.stacks.debian().current().into_keys().filter_map(|layer| match layer {
            Layer::Language(language) => Some(language),
            _ => None,
        });
        let node = stage.source().join("package.json").symlink_metadata().is_ok();
        let languages = languages::needed(taking_part, node, present);
        let layers: Vec<Layer> = languages.iter().copied().map(Layer::Language).chain([Layer::Compilers]).collect();
        self.make_layers(ticket, &layers).await?;
        let stack = self.parts.stacks.get(name, &languages, true)?;
        Ok(Ground { stack, languages, phase })
    }

    async fn make_layers(&self, ticket: &Ticket, layers: &[Layer]) -> Result<(), Failure> {
        let say = |line: &str| match line.strip_prefix("  ") {
            Some(step) => ticket.say(&format!("       {step}")),
            None => ticket.say(&format!("-----> {line}")),
        };
        let origin = Origin::default();
        tokio::select! {
            made = self.parts.stacks.debian().make(layers, &origin, &say) => made.map(drop).map_err(Failure::from),
            () = ticket.cancel.token.cancelled() => Err(Failure::Cancelled),
        }
    }
}
