//! The example `embed` answers as it says. A test without the usual harness: a process that runs scripts has one thread.

#![allow(
    missing_docs,
    reason = "the example's public items are documented where it stands"
)]

#[path = "../examples/embed.rs"]
mod embed;

use std::time::Duration;

fn main() {
    mphost_stdlib::host::child_entry();
    let answers = embed::serve(embed::REQUESTS, Duration::from_secs(2)).expect("it serves");
    let [ada, bob, cy, dee, eve] = answers.as_slice() else {
        panic!("each request has one answer: {answers:?}");
    };
    assert_eq!(ada, &("ada".to_owned(), "7".to_owned()));
    assert_eq!(bob.0, "bob");
    assert!(bob.1.starts_with("TimeoutError: "), "{bob:?}");
    assert!(cy.1.starts_with("WorkerLostError: "), "{cy:?}");
    assert!(dee.1.starts_with("ZeroDivisionError: "), "{dee:?}");
    assert_eq!(eve, &("eve".to_owned(), "40".to_owned()));
    println!("the example embed answers as it says");
}
