//! What editors, shells and the manual get: definition files, completions, man pages.

use crate::exit;
use crate::run::complain;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `mphost definitions` takes.
#[derive(Args, Debug)]
pub(crate) struct DefinitionsArgs {
    /// The directory to write them to; it is made if it isn't there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// What `mphost completions` takes.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell that they are for.
    shell: Shell,
}

/// What `mphost man` takes.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The directory to write a page of each command to; without it the page of `mphost` itself goes to standard output.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Writes Rhai definition files.
pub(crate) fn definitions(args: &DefinitionsArgs) -> u8 {
    let files = mphost_stdlib::reference::definitions::files(&mphost_stdlib::reference::entries());
    let written = std::fs::create_dir_all(&args.directory).and_then(|()| {
        files
            .iter()
            .try_for_each(|(name, text)| std::fs::write(args.directory.join(name), text))
    });
    done(written, &args.directory)
}

/// Prints a shell's completions.
pub(crate) fn completions<C: CommandFactory>(args: &CompletionsArgs) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "mphost", &mut text);
    print(&text)
}

/// Prints or writes man pages.
pub(crate) fn man<C: CommandFactory>(args: &ManArgs) -> u8 {
    let command = C::command();
    match &args.directory {
        Some(directory) => {
            let written = std::fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(command, directory));
            done(written, directory)
        }
        None => {
            let mut text = Vec::new();
            match clap_mangen::Man::new(command).render(&mut text) {
                Ok(()) => print(&text),
                Err(error) => complain(&format!("the page can't be written: {error}")),
            }
        }
    }
}

fn done(written: std::io::Result<()>, directory: &Path) -> u8 {
    match written {
        Ok(()) => exit::SUCCESS,
        Err(error) => complain(&format!(
            "'{}' can't be written: {}",
            directory.display(),
            crate::run::reason(&error)
        )),
    }
}

fn print(text: &[u8]) -> u8 {
    // A reader that has seen enough (`| head`) is no error.
    let _ = std::io::stdout().write_all(text);
    exit::SUCCESS
}
