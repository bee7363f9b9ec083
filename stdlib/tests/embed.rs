//! The example `embed` answers as it says, under all start methods. A test without the usual harness: a process that runs scripts has one
//! thread.

#![allow(
    missing_docs,
    reason = "the example's public items are documented where it stands"
)]

#[path = "../examples/embed.rs"]
mod embed;

use mphost_stdlib::process::Method;
use std::time::Duration;

fn main() {
    mphost_stdlib::host::child_entry_with(embed::functions);
    for method in Method::ALL {
        mphost_stdlib::embed::set_start_method(method);
        let answers = embed::serve(embed::REQUESTS, Duration::from_secs(2)).expect("it serves");
        let expected = [
            "ada: 7",
            "bob: TimeoutError: the task took longer than 2 s",
            "cy: WorkerLostError: worker ",
            "dee: ZeroDivisionError: Division by zero: 3 / 0",
            "eve: 40",
        ];
        assert_eq!(answers.len(), expected.len(), "{answers:?}");
        for (answer, begin) in answers.iter().zip(expected) {
            assert!(answer.starts_with(begin), "{}: {answer}", method.name());
        }
        println!(
            "the example embed answers as it says under {}",
            method.name()
        );
    }
}
