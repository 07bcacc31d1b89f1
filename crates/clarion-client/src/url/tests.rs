use super::*;

fn check(text: &str, expected: Result<(&str, u16, &str), UrlError>) {
    let got = text.parse::<BaseUrl>();
    let parts = got.as_ref().map(|u| (u.host(), u.port(), u.prefix.as_str())).map_err(Clone::clone);
    assert_eq!(parts, expected, "{text:?}");
}

#[test]
fn texts_and_where_they_lead() {
    check("http://127.0.0.1:8080", Ok(("127.0.0.1", 8080, "")));
    check("HTTP://example.org/", Ok(("example.org", 80, "")));
    check("http://h:1/push/", Ok(("h", 1, "/push")));
    check("http://[::1]:9", Ok(("::1", 9, "")));
    check("http://[::1]", Ok(("::1", 80, "")));
    let host = |text: &str| check(text, Err(UrlError::Host(text.into())));
    host("http://");
    host("http://:80");
    host("http://user@h:80");
    host("http://a b");
    host("http://[::1");
    host("http://[::1]x");
    host("http://::1");
    host("http://h/a?b");
    let port = |text: &str| check(text, Err(UrlError::Port(text.into())));
    port("http://h:");
    port("http://h:0");
    port("http://h:65536");
    port("http://h:+1");
    let scheme = |text: &str| check(text, Err(UrlError::Scheme(text.into())));
    scheme("");
    scheme("h:80");
    scheme("https://h");
    scheme("ünïcödé");
}

#[test]
fn the_text_form_leads_to_the_same_place() {
    for text in ["http://127.0.0.1:8080", "http://[::1]:9/x"] {
        assert_eq!(text.parse::<BaseUrl>().unwrap().to_string(), text);
    }
    assert_eq!(BaseUrl::default().to_string(), "http://127.0.0.1:8080");
}

#[test]
fn components_are_encoded() {
    assert_eq!(encode_component("user:a b/ü~"), "user%3Aa%20b%2F%C3%BC~");
}
