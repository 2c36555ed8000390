//! Sizes and durations as people write them: `"32M"`, `"90s"`.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of bytes: `"32M"`, `"512K"`, `"1G"` (powers of 1024), or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A time in milliseconds: `"90s"`, `"500ms"`, `"2m"`, or a plain number of milliseconds (as in s6-rc's files).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u64);

/// The lease's length: a time of at least a second, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease(pub Option<Millis>);

const SIZES: &str = r#"a size such as "32M", "512K", "1G", or a number of bytes"#;
const TIMES: &str = r#"a time such as "90s", "500ms", "2m", "1h", or a number of milliseconds"#;
const LEASES: &str = r#"a time of at least a second, such as "15m", "90s", "2h", or "off""#;
const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const TIME_WORDS: Units<Millis> = Units { expecting: TIMES, units: TIME_UNITS, wrap: Millis };

struct Units<T> {
    expecting: &'static str,
    units: &'static [(&'static str, u64)],
    wrap: fn(u64) -> T,
}

impl<T> Units<T> {
    fn parse(&self, text: &str) -> Option<T> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (_, factor) = self.units.iter().find(|(name, _)| *name == unit.trim())?;
        Some((self.wrap)(number.checked_mul(*factor)?))
    }
}

impl<T> Visitor<'_> for Units<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number =
            u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
        Ok((self.wrap)(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.wrap)(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.parse(text.trim()).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = &[("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];
        deserializer.deserialize_any(Units { expecting: SIZES, units, wrap: Bytes })
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TIME_WORDS)
    }
}

/// What is written on a command line is read by people: a number without a unit could be any.
impl std::str::FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!(r#"expected a time such as "90s", "30m" or "2h", found "{text}""#);
        TIME_WORDS.parse(text.trim()).filter(|time| time.0 > 0).ok_or_else(expected)
    }
}

struct LeaseVisitor;

impl Visitor<'_> for LeaseVisitor {
    type Value = Lease;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LEASES)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Lease, E> {
        let invalid = || E::invalid_value(de::Unexpected::Str(text), &self);
        match text.trim() {
            "off" => Ok(Lease(None)),
            time => TIME_WORDS
                .parse(time)
                .filter(|time| time.0 >= 1_000)
                .map(|time| Lease(Some(time)))
                .ok_or_else(invalid),
        }
    }
}

impl<'de> Deserialize<'de> for Lease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeaseVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Both {
        size: Option<Bytes>,
        time: Option<Millis>,
    }

    #[derive(Debug, Deserialize)]
    struct WithLease {
        lease: Lease,
    }

    #[test]
    fn a_lease_is_a_time_with_its_unit_or_off() {
        let lease =
            |text: &str| toml::from_str::<WithLease>(&format!("lease = {text}")).map(|both| both.lease);
        assert_eq!(lease("\"15m\"").unwrap(), Lease(Some(Millis(900_000))));
        assert_eq!(lease("\"2h\"").unwrap(), Lease(Some(Millis(7_200_000))));
        assert_eq!(lease("\"off\"").unwrap(), Lease(None));
        for text in ["\"0s\"", "\"999ms\"", "\"15\"", "15", "false", "\"never\"", "\"\""] {
            let e = lease(text).unwrap_err();
            assert!(e.message().contains(LEASES), "{text}: {e}");
        }
    }

    #[test]
    fn a_time_on_the_command_line_has_a_unit() {
        assert_eq!("30m".parse(), Ok(Millis(1_800_000)));
        for text in ["30", "0s", "", "m", "-5m", "soon"] {
            let e = text.parse::<Millis>().unwrap_err();
            assert_eq!(e, format!(r#"expected a time such as "90s", "30m" or "2h", found "{text}""#));
        }
    }

    fn both(text: &str) -> Both {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        for (text, bytes) in [("\"32M\"", 32 << 20), ("\"512 K\"", 512 << 10), ("\"7\"", 7), ("9", 9)] {
            assert_eq!(both(&format!("size = {text}")).size, Some(Bytes(bytes)), "{text}");
        }
        for (text, ms) in [
            ("\"90s\"", 90_000),
            ("\"500ms\"", 500),
            ("\"2m\"", 120_000),
            ("\"1h\"", 3_600_000),
            ("250", 250),
        ] {
            assert_eq!(both(&format!("time = {text}")).time, Some(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_with_what_would_be_one() {
        for text in ["\"32X\"", "\"\"", "\"M\"", "-1", "\"99999999999999999999\"", "\"17179869184G\""] {
            let e = toml::from_str::<Both>(&format!("size = {text}")).unwrap_err();
            assert!(e.message().contains(SIZES), "{text}: {e}");
        }
        let e = toml::from_str::<Both>("time = \"90\"").unwrap_err();
        assert!(e.message().contains(TIMES), "{e}");
    }
}
