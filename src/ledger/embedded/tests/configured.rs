//! Destinations that are configured while the ledger is open.

use super::*;

fn other() -> DestinationName {
    DestinationName::new("other").expect("not empty")
}

#[test]
fn what_was_rolled_back_is_not_configured() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (db, _) = open::open(folder.path(), 1024).expect("it can be made");
    let settings = |name: &DestinationName, environment: &str| DestinationSettings {
        name: name.clone(),
        environment: environment.to_owned(),
        repeat_window: Duration::ZERO,
        reassert_after: Duration::ZERO,
        expires_after: BTreeMap::new(),
        guard: GuardLimits::default(),
    };
    let first = vec![settings(&destination(), "one")];
    let mut audiences = crate::ledger::embedded::engine::audiences::Audiences::open(
        &db,
        first,
        &BTreeSet::new(),
        START,
    )
    .expect("it is new");
    let next = || vec![settings(&destination(), "two"), settings(&other(), "three")];
    for is_kept in [false, true] {
        let before = audiences.configured();
        db.execute_batch("BEGIN").expect("nobody else writes");
        audiences.configure(&db, next(), START).expect("there is space");
        if is_kept {
            db.execute_batch("COMMIT").expect("there is space");
        } else {
            db.execute_batch("ROLLBACK").expect("it has begun");
            audiences.take_back(before);
            audiences.reload(&db, false).expect("the rows are as they were");
        }
        assert_eq!(audiences.configured_destination(&other()).is_some(), is_kept);
        let environment = &audiences.destinations[0].settings.environment;
        assert_eq!(environment, if is_kept { "two" } else { "one" });
    }
    let only = vec![settings(&other(), "three")];
    audiences.configure(&db, only, START).expect("there is space");
    assert!(audiences.configured_destination(&destination()).is_none());
    assert!(audiences.destination(&destination()).is_some(), "what is on its way arrives");
}
