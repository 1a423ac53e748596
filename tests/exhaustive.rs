//! Every order of a few steps. `cargo bench --bench exhaustive` goes deeper.

mod model;
mod support;

use model::{Bounds, CONVERGENCE, ONE_MAKER, TWO};

#[test]
fn two_regions_converge_in_every_order() {
    let checked = TWO.check(2);
    assert!(checked.states > 500, "{checked:?}");
    assert!(checked.found.is_empty(), "{checked:?}");
}

#[test]
fn a_chain_of_three_regions_converges_in_every_order() {
    let chain = Bounds {
        regions: 3,
        crashes: 0,
        clones: 0,
        ..TWO
    };
    let checked = chain.check(2);
    assert!(checked.found.is_empty(), "{checked:?}");
}

/// The model can tell.
#[test]
fn one_name_for_all_processes_of_a_folder_is_caught() {
    let naive = TWO.naive();
    let found = naive.check(2).found;
    assert!(found.contains_key(ONE_MAKER), "{found:?}");
    assert!(found.contains_key(CONVERGENCE), "{found:?}");
}
