//! The one binary, `clarion`. Wiring happens here and in the modules below, and nowhere else.

mod bench;
mod cli;
mod commands;
mod config;
mod credentials;
mod data_dir;
mod exit;
mod inspect;
mod lines;
mod listen;
mod logs;
mod passwd;
mod proto;
mod publish;
mod retained;
mod serve;
mod sessions;
mod token;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(answer) => {
            // Help and version are answers, not errors; when they cannot be printed nobody is there to be told.
            let _ = answer.print();
            if answer.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
        }
    }
}
