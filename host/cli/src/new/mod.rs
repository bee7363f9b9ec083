//! `mphost new NAME`: a small program with a test, to begin one's own with.
//!
//! Invariant: nothing that is there is overwritten or added to.

use crate::exit;
use crate::run::complain;
use clap::Args;
use std::io::ErrorKind;
use std::path::PathBuf;

const FILES: [(&str, &str); 3] = [
    ("main.rhai", include_str!("main.rhai")),
    ("squares.rhai", include_str!("squares.rhai")),
    ("squares_test.rhai", include_str!("squares_test.rhai")),
];

/// What `mphost new` takes.
#[derive(Args, Debug)]
pub(crate) struct NewArgs {
    /// The directory of the program, which must not be there yet.
    #[arg(value_name = "NAME")]
    directory: PathBuf,
}

/// Writes the program.
pub(crate) fn new(args: &NewArgs) -> u8 {
    let directory = &args.directory;
    let shown = directory.display();
    if let Some(parent) = directory.parent()
        && let Err(error) = std::fs::create_dir_all(parent)
    {
        return complain(&format!(
            "'{}' can't be made: {}",
            parent.display(),
            crate::run::reason(&error)
        ));
    }
    if let Err(error) = std::fs::create_dir(directory) {
        return complain(&match error.kind() {
            ErrorKind::AlreadyExists => {
                format!("'{shown}' is there already: nothing was changed; choose another name")
            }
            _ => format!("'{shown}' can't be made: {}", crate::run::reason(&error)),
        });
    }
    for (name, text) in FILES {
        let path = directory.join(name);
        if let Err(error) = std::fs::write(&path, text) {
            return complain(&format!(
                "'{}' can't be written: {}",
                path.display(),
                crate::run::reason(&error)
            ));
        }
    }
    crate::ui::Ui::standard().print(&format!(
        "A program is in '{shown}':\n  mphost run {shown}/main.rhai\n  mphost test {shown}"
    ));
    exit::SUCCESS
}
