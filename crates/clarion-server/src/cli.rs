//! The command line: names and options. Must not know: what the commands do.

use crate::{
    bench, commands, inspect, listen, passwd, proto, publish, retained, serve, sessions, token,
};
use std::process::ExitCode;

/// A message push server in one binary.
#[derive(Debug, clap::Parser)]
#[command(name = "clarion", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the server; works without any configuration.
    Serve(serve::Args),
    /// Publish one message and print the answer as one JSON line.
    Publish(publish::Args),
    /// Print what arrives, one JSON line each, and ack it.
    Listen(listen::Args),
    /// List or delete retained messages of a running server.
    Retained(retained::Args),
    /// List, show or delete stored sessions of a running server, or move a cursor of one.
    Sessions(sessions::Args),
    /// Measure a running server.
    Bench(bench::Args),
    /// Print what a data directory holds.
    Inspect(inspect::Args),
    /// Set or delete a user's password in a password file.
    Passwd(passwd::Args),
    /// Make a JSON Web Token for a user.
    Token(token::Args),
    /// Check a configuration and start nothing.
    CheckConfig(commands::CheckArgs),
    /// Print the keys of the configuration.
    Config(commands::PrintArgs),
    /// Print the proto files of the gRPC services.
    Proto(proto::Args),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Publish(args) => publish::run(args),
            Command::Listen(args) => listen::run(args),
            Command::Retained(args) => retained::run(args),
            Command::Sessions(args) => sessions::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Passwd(args) => passwd::run(&args),
            Command::Token(args) => token::run(&args),
            Command::CheckConfig(args) => commands::check(&args),
            Command::Config(args) => commands::print(&args),
            Command::Proto(args) => proto::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
