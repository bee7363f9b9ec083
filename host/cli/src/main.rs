//! The command line of mphost.

#[allow(dead_code, reason = "main offers no subcommands yet")]
mod test_runner;
#[allow(dead_code, reason = "main offers no subcommands yet")]
mod ui;

fn main() {}
