//! `clarion sessions`: lists, shows and deletes stored sessions of a running server, and moves their cursors; one JSON line each.
//! Must not know: the server's insides.

use clarion_client::{Client, LogEnd, MoveTo, StoredSessionsQuery};
use serde_json::json;

use crate::lines::{self, PAGE, Stopped, print};
use crate::publish::{ServerArgs, block_on, usage};
use std::process::ExitCode;

/// Lists, shows or deletes sessions that outlive their connections, or moves a cursor of one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print stored sessions, attached or not, one JSON line each, in the order of their client ids.
    List {
        /// Only this user's.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// Stop after so many.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Print a stored session, then each of its subscriptions and how far it is read, one JSON line each.
    Show {
        /// Its client id.
        client: String,
    },
    /// End these sessions with all that they have; clients that are connected are closed.
    Delete {
        /// Client ids.
        #[arg(required = true)]
        clients: Vec<String>,
    },
    /// Move the cursor of a session's subscription: what lies below counts as acked, what lies above does not.
    Move {
        /// The session's client id.
        client: String,
        /// The filter of the subscription.
        filter: String,
        /// `earliest`, `latest`, or the seq that comes next.
        #[arg(value_parser = target)]
        to: MoveTo,
        /// Close the session if it is attached, instead of refusing.
        #[arg(long)]
        force: bool,
    },
}

fn target(text: &str) -> Result<MoveTo, String> {
    match text {
        "earliest" => Ok(MoveTo::End(LogEnd::Earliest)),
        "latest" => Ok(MoveTo::End(LogEnd::Latest)),
        _ => match text.parse() {
            Ok(seq @ 1..) => Ok(MoveTo::Seq(seq)),
            _ => Err("it is neither `earliest` nor `latest` nor a seq, which are from 1 on".into()),
        },
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> ExitCode {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(text) => return usage(&text),
    };
    lines::ended(match args.what {
        What::List { user, limit } => block_on(list(&client, user, limit)),
        What::Show { client: id } => block_on(show(&client, &id)),
        What::Delete { clients } => block_on(delete(&client, &clients)),
        What::Move { client: id, filter, to, force } => {
            block_on(move_cursor(&client, &id, &filter, to, force))
        }
    })
}

async fn list(client: &Client, user: Option<String>, limit: Option<u64>) -> Result<(), Stopped> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut query = StoredSessionsQuery { user, ..StoredSessionsQuery::default() };
    while left > 0 {
        query.limit = Some(left.min(PAGE) as u32);
        let page = client.stored_sessions(&query).await?;
        left = left.saturating_sub(page.sessions.len() as u64);
        print(&page.sessions)?;
        if page.next.is_none() {
            break;
        }
        query.after = page.next;
    }
    Ok(())
}

async fn show(client: &Client, id: &str) -> Result<(), Stopped> {
    let mut from = 0;
    loop {
        let page = client.stored_session(id, from).await?;
        if from == 0 {
            let line = json!({
                "session": page.session,
                "in_flight": page.in_flight,
                "inbound_qos2": page.inbound_qos2,
                "retained_owed": page.retained_owed,
            });
            print(&[line])?;
        }
        print(&page.subscriptions)?;
        match page.next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

async fn delete(client: &Client, ids: &[String]) -> Result<(), Stopped> {
    for id in ids {
        client.delete_stored_session(id).await?;
        print(&[json!({ "client_id": id, "deleted": true })])?;
    }
    Ok(())
}

async fn move_cursor(
    client: &Client,
    id: &str,
    filter: &str,
    to: MoveTo,
    force: bool,
) -> Result<(), Stopped> {
    let moved = client.move_cursor(id, filter, to, force).await?;
    print(&[moved])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_cursor_goes() {
        assert_eq!(target("latest"), Ok(MoveTo::End(LogEnd::Latest)));
        assert_eq!(target("17"), Ok(MoveTo::Seq(17)));
        for bad in ["", "0", "-1", "head", "Latest"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
