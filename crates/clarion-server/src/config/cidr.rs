//! Address ranges for `allow_from`: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::{fmt, net::IpAddr, str::FromStr};

/// A range of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the address lies in it. An IPv4 address that arrives inside IPv6 (`::ffff:10.0.0.1`) is the IPv4 one.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = mask_v4(self.prefix);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = mask_v6(self.prefix);
                base.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }

    /// The range with all bits behind the prefix cleared.
    fn network(self) -> Self {
        let base = match self.base {
            IpAddr::V4(base) => IpAddr::V4((base.to_bits() & mask_v4(self.prefix)).into()),
            IpAddr::V6(base) => IpAddr::V6((base.to_bits() & mask_v6(self.prefix)).into()),
        };
        Self { base, ..self }
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address
            .parse()
            .map_err(|_| "expected an address range such as 10.0.0.0/8 or ::1".to_owned())?;
        if base.to_canonical() != base {
            return Err("write a range of IPv4 addresses as IPv4".to_owned());
        }
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or_else(|| format!("the prefix length is 0 to {longest}"))?,
            Some(_) => return Err(format!("the prefix length is 0 to {longest}")),
        };
        let range = Self { base, prefix };
        if range != range.network() {
            return Err(format!("has bits behind its prefix; did you mean {}?", range.network()));
        }
        Ok(range)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        let check = |range: &str, address: &str, inside| {
            let range: Cidr = range.parse().unwrap();
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{range} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("10.0.0.0/8", "::10.1.2.3", false);
        check("192.168.1.7", "192.168.1.7", true);
        check("192.168.1.7", "192.168.1.6", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("2001:db8::/33", "2001:db8:7fff::", true);
        check("2001:db8::/33", "2001:db8:8000::", false);
        check("::1", "::1", true);
        check("::1", "127.0.0.1", false);
    }

    #[test]
    fn bad_ranges_say_why() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "expected an address range");
        check("localhost", "expected an address range");
        check("10.0.0.0/33", "0 to 32");
        check("::/129", "0 to 128");
        check("::/999", "0 to 128");
        check("10.0.0.0/", "0 to 32");
        check("10.0.0.0/+8", "0 to 32");
        check("10.0.0.0/-1", "0 to 32");
        check("::ffff:10.0.0.0/104", "as IPv4");
        check("10.1.0.0/8", "did you mean 10.0.0.0/8?");
        check("2001:db8::1/32", "did you mean 2001:db8::/32?");
    }

    #[test]
    fn text_comes_back() {
        for text in ["10.0.0.0/8", "192.168.1.7/32", "::/0", "2001:db8::/33"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
    }
}
