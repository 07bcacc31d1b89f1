//! The methods of `clarion.v1.Clarion` about stored sessions.

use super::native::limit;
use super::route::App;
use clarion_core::start::From as Start;
use clarion_core::{Code, Principal, Refusal};
use clarion_node::{StoredSession, SubscriptionDetails};
use clarion_wire::proto::clarion_v1 as pb;

fn session(session: StoredSession) -> pb::StoredSession {
    pb::StoredSession {
        client_id: session.client_id,
        user: session.user.unwrap_or_default(),
        attached: session.attached,
        created_at: session.created_at,
        ended_at: session.ended_at,
        expiry_s: session.expiry_s,
        expires_at: session.expires_at,
        subscriptions: session.subscriptions as u32,
    }
}

pub(super) async fn stored_sessions(
    app: &App,
    principal: &Principal,
    request: pb::StoredSessionsRequest,
) -> Result<pb::StoredSessionsResponse, Refusal> {
    let limit = limit(request.limit)?;
    let user = (!request.user.is_empty()).then_some(request.user.as_str());
    let after = (!request.after.is_empty()).then_some(request.after.as_str());
    let page = app.node.list_stored_sessions(principal, user, after, limit).await?;
    Ok(pb::StoredSessionsResponse {
        sessions: page.sessions.into_iter().map(session).collect(),
        next: page.next.unwrap_or_default(),
    })
}

fn subscription(details: SubscriptionDetails) -> pb::SessionSubscription {
    let options = details.sub.options;
    let tail = details.tail();
    pb::SessionSubscription {
        share: details.share().unwrap_or_default().to_owned(),
        feed: details.is_feed(),
        qos: options.qos.into(),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        id: options.id,
        since: details.since(),
        channel: details.channel().map_or_else(String::new, |log| log.as_str().to_owned()),
        tail: tail.map(|(at, tail)| pb::SubscriptionTail { at, until: tail.until, all: tail.all }),
        cursor: details.cursor.map(|cursor| pb::SubscriptionCursor {
            epoch: cursor.epoch,
            acked: cursor.acked,
            head: cursor.head,
            backlog: cursor.backlog,
            lost: cursor.lost,
            lag_ms: cursor.lag_ms,
        }),
        filter: details.sub.filter.into(),
    }
}

pub(super) async fn inspect_session(
    app: &App,
    principal: &Principal,
    request: pb::InspectSessionRequest,
) -> Result<pb::InspectSessionResponse, Refusal> {
    let limit = limit(request.limit)?;
    let details =
        app.node.inspect_session(principal, &request.client_id, request.from, limit).await?;
    Ok(pb::InspectSessionResponse {
        session: Some(session(details.session)),
        in_flight_qos1: details.in_flight_qos1 as u32,
        in_flight_qos2: details.in_flight_qos2 as u32,
        inbound_qos2: details.inbound_qos2 as u32,
        retained_owed: details.retained_owed as u32,
        subscriptions: details.subscriptions.into_iter().map(subscription).collect(),
        next: details.next,
    })
}

pub(super) async fn delete_session(
    app: &App,
    principal: &Principal,
    request: pb::DeleteSessionRequest,
) -> Result<pb::DeleteSessionResponse, Refusal> {
    app.node.delete_session(principal, &request.client_id).await?;
    Ok(pb::DeleteSessionResponse {})
}

pub(super) async fn move_cursor(
    app: &App,
    principal: &Principal,
    request: pb::MoveCursorRequest,
) -> Result<pb::MoveCursorResponse, Refusal> {
    let to = match pb::From::try_from(request.to) {
        Ok(pb::From::Earliest) => Start::Earliest,
        Ok(pb::From::Latest) => Start::Latest,
        Ok(pb::From::Seq) => Start::Seq(request.seq),
        Ok(pb::From::Unacked) | Err(_) => {
            let detail = "to: FROM_EARLIEST, FROM_LATEST or FROM_SEQ";
            return Err(Refusal::new(Code::BadRequest, detail));
        }
    };
    let (client, filter) = (&request.client_id, &request.filter);
    let moved = app.node.move_session_cursor(principal, client, filter, to, request.force).await?;
    Ok(pb::MoveCursorResponse { epoch: moved.epoch, acked: moved.acked, head: moved.head })
}
