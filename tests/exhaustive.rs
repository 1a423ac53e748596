//! Every order of a few steps, up to a small depth. `cargo bench --bench exhaustive` goes further.

mod model;
mod support;

use model::Bounds;
use stateright::{Checker as _, Model as _};
use support::Identity;

const TWO: Bounds = Bounds {
    regions: 2,
    likes: 2,
    unlikes: 1,
    crashes: 1,
    clones: 1,
    breaks: 0,
    passes: 1,
    depth: 2,
    identity: Identity::Fresh,
};

/// The first state that breaks a rule, told.
fn broken(bounds: Bounds) -> Option<String> {
    let checked = bounds.checker().threads(2).spawn_bfs().join();
    println!(
        "{} distinct states of at most {} steps",
        checked.unique_state_count(),
        checked.max_depth()
    );
    let found = checked.discoveries().into_values().next()?;
    let problem = bounds.problem(found.last_state()).unwrap_or_default();
    Some(format!("{problem}, after {:?}", found.into_actions()))
}

#[test]
fn every_order_of_a_few_steps_converges() {
    assert_eq!(broken(TWO), None);
}

/// The model can tell: processes that go on under their folder's name are caught.
#[test]
fn one_name_for_all_processes_of_a_folder_is_not_enough() {
    let naive = Bounds {
        identity: Identity::OfTheFolder,
        ..TWO
    };
    let found = broken(naive).expect("it is found");
    println!("{found}");
}
