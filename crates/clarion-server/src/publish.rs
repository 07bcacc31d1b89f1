//! `clarion publish`: one message, its answer as one JSON line. Owns what the client commands share: where the server is,
//! the key, how an error is told and with which exit status. Must not know: the server's insides.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clarion_client::{BaseUrl, Client, ClientError, Publish};
use serde_json::value::RawValue;

use crate::exit::{self, Failure};

/// Where the server is and who asks.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// The server's HTTP listener.
    #[arg(long, default_value_t = BaseUrl::default(), value_name = "URL", global = true)]
    pub(crate) url: BaseUrl,
    /// A bearer key; the environment's CLARION_KEY keeps it out of the process list.
    #[arg(long, value_name = "KEY", global = true)]
    pub(crate) token: Option<String>,
}

impl ServerArgs {
    /// The key, from the command line or the environment.
    pub(crate) fn key(&self) -> Option<String> {
        self.token
            .clone()
            .or_else(|| std::env::var("CLARION_KEY").ok())
            .filter(|key| !key.is_empty())
    }

    /// A client for it.
    pub(crate) fn client(&self) -> Result<Client, String> {
        let client = Client::new(self.url.clone());
        match self.key() {
            None => Ok(client),
            Some(key) => client
                .with_key(&key)
                .ok_or_else(|| "the key has characters that no header takes".into()),
        }
    }
}

/// Publishes one message and prints the answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// user:ID, group:ID, queue:ID, topic:NAME or all.
    address: String,
    /// The payload.
    text: String,
    /// The payload is JSON, not text.
    #[arg(long)]
    json: bool,
    /// Seconds until it is of no use; 0 = only for those who are there now.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    expire: Option<i64>,
    /// The application's name of the event.
    #[arg(long)]
    kind: Option<String>,
    /// An idempotency key: the same key again returns the first answer and stores nothing.
    #[arg(long)]
    key: Option<String>,
    /// A header; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    server: ServerArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    Ok((name.into(), value.into()))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> ExitCode {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(text) => return usage(&text),
    };
    let message = match message(args) {
        Ok(message) => message,
        Err(text) => return usage(&text),
    };
    let answer = match block_on(async { client.publish(&message).await }) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return fail(&error),
        Err(error) => return complain(&error.to_string(), 1),
    };
    match serde_json::to_string(&answer) {
        // Whoever closed the pipe does not want the line; the message is published all the same.
        Ok(line) => {
            let _ = writeln!(io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error.to_string(), 1),
    }
}

fn message(args: Args) -> Result<Publish, String> {
    let (text, json) = if args.json {
        let json = RawValue::from_string(args.text)
            .map_err(|e| format!("the payload is not JSON: {e}"))?;
        (None, Some(json))
    } else {
        (Some(args.text), None)
    };
    Ok(Publish {
        address: args.address,
        text,
        json,
        kind: args.kind,
        headers: args.headers,
        expire: args.expire,
        idempotency_key: args.key,
        ..Publish::default()
    })
}

/// Runs a client command on a runtime of one thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

/// Says that the command line is wrong.
pub(crate) fn usage(text: &str) -> ExitCode {
    complain(text, exit::USAGE)
}

/// Tells an error of the client in one line.
pub(crate) fn fail(error: &ClientError) -> ExitCode {
    complain(&error.to_string(), if error.is_unreachable() { exit::UNAVAILABLE } else { 1 })
}

/// One line on standard error, and the exit status.
pub(crate) fn complain(text: &str, status: u8) -> ExitCode {
    Failure::new(status, text.replace('\n', " ")).report()
}
