//! The command line of mphost.

fn main() {}
