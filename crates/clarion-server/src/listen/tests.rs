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
        let got = source(&args(address, device)).ok();
        let got = got.as_ref().map(|source| match source {
            Source::Stream(q) => (q.user.as_deref(), q.device.as_deref(), q.address.as_deref()),
            Source::Queue(name) => panic!("{name} is taken for a queue"),
        });
        assert_eq!(got, expected, "{address} {device:?}");
    };
    check("user:u", None, Some((Some("u"), Some("default"), None)));
    check("user:u", Some("tv"), Some((Some("u"), Some("tv"), None)));
    check("topic:a/b", None, Some((None, None, Some("topic:a/b"))));
    check("all", None, Some((None, None, Some("all"))));
    check("all", Some("tv"), None);
    let queue = |device: Option<&str>, from: Option<&str>| {
        source(&Args { from: from.map(Into::into), ..args("queue:a:b", device) })
    };
    assert_eq!(queue(None, None), Ok(Source::Queue("a:b".into())));
    assert!(queue(Some("d"), None).is_err_and(|text| text.contains("share")));
    assert!(queue(None, Some("earliest")).is_err());
}

#[test]
fn control_events_become_one_json_object() {
    let event = |data: &str| Event { name: "gap".into(), data: data.into(), id: None };
    assert_eq!(control(&event(r#"{"from":1}"#)), json!({"event": "gap", "from": 1}));
    assert_eq!(control(&event("odd")), json!({"event": "gap", "data": "odd"}));
}
