//! The audit log, tried on a real file.
#![forbid(unsafe_code)]

use super::audit::{Attempt, Wanted, begin, end, list, newest, trim};
use super::tests::{new_app, root, write};
use super::*;
use crate::domain::actor::{AccountId, Actor};
use jiff::Timestamp;
use std::collections::BTreeSet;
use uuid::Uuid;

fn attempt(account: u128, action: &str) -> Attempt {
    Attempt {
        actor: Actor { id: AccountId(Uuid::from_u128(account)), email: format!("{account}@example.com") },
        action: action.to_owned(),
        app: None,
        owner: None,
        path: "/".to_owned(),
        origin: "192.0.2.1".to_owned(),
        request: "1".to_owned(),
    }
}

#[test]
fn who_does_most_loses_his_own_oldest_events() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        begin(tx, &attempt(1, "app:create"), Timestamp::now())?;
        for _ in 0..20 {
            begin(tx, &attempt(2, "app:update"), Timestamp::now())?;
        }
        begin(tx, &attempt(1, "app:destroy"), Timestamp::now())?;
        trim(tx, 10)?;
        let left = list(tx, &Wanted { max: 100, ..Wanted::default() })?;
        assert_eq!(left.len(), 10);
        let ours: Vec<&str> =
            left.iter().filter(|e| e.attempt.actor.id.0.as_u128() == 1).map(|e| e.attempt.action.as_str()).collect();
        assert_eq!(ours, ["app:destroy", "app:create"]);
        assert_eq!(left.iter().map(|event| event.id).collect::<Vec<_>>(), [22, 21, 20, 19, 18, 17, 16, 15, 14, 1]);
        Ok(())
    });
}

#[test]
fn an_app_that_is_told_of_at_the_end_has_its_name_and_owner() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let app = new_app(tx, "shop")?;
        let id = begin(tx, &attempt(1, "addon:attach"), Timestamp::now())?;
        end(tx, id, 201, Some("db as DATABASE"), Some(app.id))?;
        apps::delete(tx, app.id)?;
        let wanted = Wanted { of: Some((BTreeSet::new(), app.owner.id)), max: 1, ..Wanted::default() };
        let event = list(tx, &wanted)?.remove(0);
        assert_eq!(event.attempt.app, Some((app.id, "shop".to_owned())));
        assert_eq!(event.attempt.owner, Some(app.owner.id));
        Ok(())
    });
}

#[test]
fn events_of_one_app_are_found_by_their_index() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    write(&store, |tx| {
        let plan = |of_app| {
            let sql = format!("EXPLAIN QUERY PLAN {}", newest(of_app));
            let params = (0, Some("x").filter(|_| of_app), None::<&str>, None::<&str>);
            Ok::<_, StoreError>(tx.all(&sql, params, |row| row.get::<_, String>("detail"))?.join("; "))
        };
        assert!(plan(true)?.contains("USING INDEX audit_of_app (app_id=? AND id<?)"), "{}", plan(true)?);
        assert!(!plan(true)?.contains("TEMP B-TREE") && !plan(false)?.contains("TEMP B-TREE"));
        Ok(())
    });
}
