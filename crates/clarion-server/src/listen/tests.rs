use super::*;

fn args(address: &str, device: Option<&str>) -> Args {
    Args {
        address: address.into(),
        device: device.map(Into::into),
        from: Some("earliest".into()),
        count: None,
        server: ServerArgs { url: clarion_client::BaseUrl::default(), token: None },
    }
}

#[test]
fn an_address_decides_what_is_read() {
    let check = |address, device, expected: Option<(Option<&str>, Option<&str>, Option<&str>)>| {
        let got = query(&args(address, device)).ok();
        let got =
            got.as_ref().map(|q| (q.user.as_deref(), q.device.as_deref(), q.address.as_deref()));
        assert_eq!(got, expected, "{address} {device:?}");
    };
    check("user:u", None, Some((Some("u"), Some("default"), None)));
    check("user:u", Some("tv"), Some((Some("u"), Some("tv"), None)));
    check("topic:a/b", None, Some((None, None, Some("topic:a/b"))));
    check("queue:q", None, Some((Some(QUEUE_USER), Some("default"), Some("queue:q"))));
    check("all", None, Some((None, None, Some("all"))));
    check("all", Some("tv"), None);
}

#[test]
fn control_events_become_one_json_object() {
    let event = |data: &str| Event { name: "gap".into(), data: data.into(), id: None };
    assert_eq!(control(&event(r#"{"from":1}"#)), json!({"event": "gap", "from": 1}));
    assert_eq!(control(&event("odd")), json!({"event": "gap", "data": "odd"}));
}
