//! `clarion retained`: lists and deletes retained messages of a running server, one JSON line each. Must not know: the
//! server's insides.

use clarion_client::{Client, RetainedQuery};
use serde_json::json;

use crate::lines::{self, PAGE, Stopped, print};
use crate::publish::{ServerArgs, block_on, usage};
use std::process::ExitCode;

/// Lists or deletes retained messages.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print retained messages, one JSON line each, in the order of their topics.
    List {
        /// Only of topics that this MQTT filter matches.
        #[arg(default_value = "#")]
        filter: String,
        /// Stop after so many.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Delete the retained messages of these topics; who is subscribed is not told.
    Delete {
        /// Topics, without wildcards.
        #[arg(required = true)]
        topics: Vec<String>,
    },
}

/// Runs the command.
pub(crate) fn run(args: Args) -> ExitCode {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(text) => return usage(&text),
    };
    lines::ended(match args.what {
        What::List { filter, limit } => block_on(list(&client, filter, limit)),
        What::Delete { topics } => block_on(delete(&client, &topics)),
    })
}

async fn list(client: &Client, filter: String, limit: Option<u64>) -> Result<(), Stopped> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut query = RetainedQuery { filter: Some(filter), ..RetainedQuery::default() };
    while left > 0 {
        query.limit = Some(left.min(PAGE) as u32);
        let page = client.retained(&query).await?;
        left = left.saturating_sub(page.messages.len() as u64);
        print(&page.messages)?;
        if page.next.is_none() {
            break;
        }
        query.after = page.next;
    }
    Ok(())
}

async fn delete(client: &Client, topics: &[String]) -> Result<(), Stopped> {
    for topic in topics {
        client.delete_retained(topic).await?;
        let line = json!({ "topic": topic, "deleted": true });
        print(&[line])?;
    }
    Ok(())
}
