use super::*;

fn check(input: &str, expected: Option<(u16, &str)>) {
    let got = parse(input.as_bytes()).unwrap();
    assert_eq!(got.map(|(status, body)| (status, &input[body])), expected, "{input:?}");
}

#[test]
fn answers_are_cut_where_their_length_says() {
    check("", None);
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", None);
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh", None);
    check("HTTP/1.1 200 OK\r\nx: y\r\nContent-Length:2\r\n\r\nhiHTTP/1.1", Some((200, "hi")));
    check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, "")));
    for odd in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
    ] {
        assert!(parse(odd.as_bytes()).is_err(), "{odd:?}");
    }
}
