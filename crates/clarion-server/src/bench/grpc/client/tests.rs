use super::*;

#[test]
fn the_status_is_taken_from_the_trailers() {
    let trailers = |fields: &[(&'static str, &'static str)]| {
        let fields = fields.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        fields.collect::<HeaderMap>()
    };
    told(Some(&trailers(&[("grpc-status", "0")]))).unwrap();
    let error = told(Some(&trailers(&[("grpc-status", "8"), ("grpc-message", "full")])));
    assert!(matches!(error, Err(BenchError::Grpc { code: 8, detail }) if detail == "full"));
    assert!(matches!(told(Some(&HeaderMap::new())), Err(BenchError::Io(_))));
    assert!(matches!(told(None), Err(BenchError::Io(_))));
}

#[test]
fn a_method_has_an_address_and_a_key_that_headers_take() {
    let method = Method::new("h:1", "/s/M", Some("k")).unwrap().0;
    assert_eq!(method.uri().to_string(), "http://h:1/s/M");
    assert_eq!(method.headers()["authorization"], "Bearer k");
    Method::new("h:1", "/s/M", Some("a\nb")).unwrap_err();
}
