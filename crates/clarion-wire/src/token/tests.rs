//! Round trips, bounds, and what a changed bit does.

use super::*;
use proptest::prelude::*;

const SECRET: Secret = [7; 16];

fn text(positions: &[TokenPosition]) -> String {
    let mut out = b"id: ".to_vec();
    encode(&SECRET, 42, 5, 6, positions.iter().copied(), &mut out);
    String::from_utf8(out.split_off(4)).unwrap()
}

fn position() -> impl Strategy<Value = TokenPosition> {
    (any::<u32>(), any::<u32>(), 0u64..1 << 42, 0u64..1 << 42).prop_map(
        |(tag, epoch, start, more)| TokenPosition { tag, epoch, start, seq: start + more },
    )
}

proptest! {
    #[test]
    fn a_token_is_bounded_and_gives_back_the_most_recent(positions in prop::collection::vec(position(), 0..12)) {
        let text = text(&positions);
        prop_assert!(text.len() <= TOKEN_BYTES_MAX, "{}", text.len());
        let token = decode(&SECRET, &text).unwrap();
        prop_assert_eq!((token.reader, token.user_tag, token.principal_tag), (42, 5, 6));
        prop_assert!(token.positions.len() >= positions.len().min(4));
        prop_assert_eq!(&token.positions[..], &positions[..token.positions.len()]);
    }

    #[test]
    fn a_changed_token_is_no_token(position in position(), at in 0usize..20, bit in 0u32..8) {
        let text = text(&[position]);
        let mut raw = URL_SAFE_NO_PAD.decode(&text).unwrap();
        raw[at] ^= 1 << bit;
        prop_assert_eq!(decode(&SECRET, &URL_SAFE_NO_PAD.encode(&raw)), Err(TokenError));
        prop_assert_eq!(decode(&[8; 16], &text), Err(TokenError));
    }

    #[test]
    fn no_text_panics(text in ".{0,220}") {
        prop_assert_eq!(decode(&SECRET, &text), Err(TokenError));
    }
}

#[test]
fn eight_channels_of_ordinary_length_fit() {
    let positions =
        [TokenPosition { tag: 1, epoch: u32::MAX, start: 1_000_000, seq: 1_010_000 }; 8];
    let token = decode(&SECRET, &text(&positions)).unwrap();
    assert_eq!(token.positions.len(), 8);
}
